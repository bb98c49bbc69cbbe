// Choosing tokens: which passes over a row are needed, and what is decided between them.
//
//   scan the logits -> edit them, if anything does -> weigh: sums and maxima of blocks of 128
//   -> top_k, top_p: candidates from the blocks whose maximum is large enough, sorted -> sums of what is left -> inverse CDF
//
// Weights are not kept: a block's are computed again where they are looked at, which is cheaper than to write a row of them.
// Many rows are shared among threads row by row; where there are fewer rows than threads, each pass is cut instead.
#include "sampling.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <iterator>
#include <limits>
#include <vector>

#include "scratch.h"

namespace {

constexpr int64_t BLOCK = RAMIFY_BLOCK;
constexpr int64_t FEW[] = {128, 1024};  // candidates, about, that top_p tries first: a model sure of itself needs no more
constexpr int64_t SORTED = 1024;     // more than these are sorted by digits
constexpr int64_t PIECES = 4;        // of a pass, for each thread
constexpr double NS_PER_LOGIT = 0.1;
constexpr float INF = std::numeric_limits<float>::infinity();

const RamifySampling& passes(int32_t level) {
#ifdef __x86_64__
    if (level >= 2) return level2::SAMPLING;
    if (level == 1) return level1::SAMPLING;
#endif
    return level0::SAMPLING;
}

// What a row needs while it is worked on.
struct Space {
    float *edited, *candidates, *spare, *sums, *largest;
    int64_t* equal;  // of weights equal to the least that stays, how many a block may keep

    static int64_t bytes(int64_t blocks) { return (3 * sizeof(float) * BLOCK + 64) * blocks; }
    static Space in(char* memory, int64_t blocks) {
        const int64_t row = blocks * BLOCK;
        float* floats = reinterpret_cast<float*>(memory);
        float* small = floats + 3 * row;
        return {floats, floats + row, floats + 2 * row, small, small + blocks, reinterpret_cast<int64_t*>(small + 2 * blocks)};
    }
};

// Ascending order of the bits is that of the values: they are not negative.
void sort_down(float* values, int64_t count, float* spare) {
    if (count <= SORTED) return std::sort(values, values + count, [](float a, float b) { return a > b; });
    constexpr int BITS = 11, SIZE = 1 << BITS;
    static thread_local uint32_t places[3][SIZE];
    std::memset(places, 0, sizeof places);
    auto digit = [](float value, int pass) {
        uint32_t bits;
        std::memcpy(&bits, &value, 4);
        return ~bits >> (BITS * pass) & (SIZE - 1);  // inverted: largest first
    };
    for (int64_t i = 0; i < count; i++) {
        for (int pass = 0; pass < 3; pass++) places[pass][digit(values[i], pass)]++;
    }
    float *from = values, *to = spare;
    for (int pass = 0; pass < 3; pass++) {
        uint32_t before = 0;
        for (int i = 0; i < SIZE; i++) {
            const uint32_t here = places[pass][i];
            places[pass][i] = before;
            before += here;
        }
        for (int64_t i = 0; i < count; i++) to[places[pass][digit(from[i], pass)]++] = from[i];
        std::swap(from, to);
    }
    std::memcpy(values, spare, sizeof(float) * count);  // three passes: the last went into `spare`
}

// Index of the first running sum above target, or, if rounding left none, of the first that equals the last.
template <class Value>
int64_t first_above(int64_t count, double target, double total, const Value& value, double* before) {
    double running = 0;
    int64_t i = 0;
    for (; i < count; i++) {
        const double next = running + value(i);
        if (!(next <= target && next < total)) {
            *before = next - value(i);
            return i;
        }
        running = next;
    }
    *before = running;
    return count - 1;
}

class Row {
  public:
    Row(const RamifyDraw& draw, int64_t vocab, int32_t dtype, const RamifySampling& pass, Space space)
        : draw_(draw), vocab_(vocab), blocks_((vocab + BLOCK - 1) / BLOCK), dtype_(dtype), pass_(pass), space_(space) {
        row_ = {draw.logits, vocab, 0, draw.inverse_temperature};
    }

    RamifyBest scan(int64_t first_block, int64_t last_block) const {
        return pass_.scan[dtype_](row_.logits, first_block * BLOCK, std::min(last_block * BLOCK, vocab_));
    }
    RamifyBest edit(int64_t first_block, int64_t last_block) const {
        return pass_.edit[dtype_](draw_, vocab_, first_block * BLOCK, last_block * BLOCK,
                                   draw_.inverse_temperature == 0 ? nullptr : space_.edited);
    }
    void weigh(int64_t first_block, int64_t last_block) const {
        pass_.weigh[dtype_](row_, first_block, last_block, space_.sums, space_.largest);
    }

    // Takes notice of the best of the logits as they came, or as edited. False: the token is decided.
    bool found(RamifyBest best, bool edited) {
        if (!edited && !std::isfinite(best.value)) return bad = true, false;
        if (edited && best.value == -INF) return bad = true, false;
        if (draw_.edited() && !edited) return true;
        token = best.id;
        row_.largest = best.value;
        if (edited) row_.logits = space_.edited, dtype_ = RAMIFY_FP32;
        if (draw_.inverse_temperature == 0) return false;
        if (!std::isfinite(best.value)) return token = 0, false;
        return true;
    }

    void draw() {
        double everything = 0;
        for (int64_t b = 0; b < blocks_; b++) everything += space_.sums[b];
        if (draw_.top_k > 0 || draw_.top_p < 1) find_least(everything);
        const bool filtered = least_ > 0 || draw_.min_p > 0;
        if (filtered) everything = filter_blocks();
        const double target = static_cast<double>(draw_.uniform) * everything;
        double before = 0;
        const int64_t block = first_above(blocks_, target, everything, [&](int64_t b) { return space_.sums[b]; }, &before);
        alignas(64) float weights[BLOCK];
        pass_.block[dtype_](row_, block, weights);
        if (filtered) {
            int64_t equal = space_.equal[block];
            pass_.filter(weights, least_, draw_.min_p, &equal);
        }
        double inside = 0;
        for (int i = 0; i < BLOCK; i++) inside += weights[i];
        const double rest = target - before > 0 ? target - before : 0;
        double unused;
        token = block * BLOCK + first_above(BLOCK, rest, inside, [&](int64_t i) { return weights[i]; }, &unused);
    }

    double total() const {
        double sum = 0;
        for (int64_t b = 0; b < blocks_; b++) sum += space_.sums[b];
        return sum;
    }

    int64_t token = -1;
    bool bad = false;

  private:
    // The least weight that top_k and top_p keep, and how many equal to it stay.
    void find_least(double everything) {
        const double share = draw_.top_p < 1 ? static_cast<double>(draw_.top_p) : std::numeric_limits<double>::infinity();
        float* values = space_.candidates;
        if (draw_.top_k > 0) {
            const int64_t limit = std::min(draw_.top_k, vocab_);
            const int64_t count = std::min(collect(some_least(limit)), limit);
            double mass = 0;
            for (int64_t i = 0; i < count; i++) mass += values[i];
            return keep(count, limit, share * mass, count == limit);
        }
        const double wanted = share * everything, enough = wanted * (1 + 1e-9);
        int64_t count = -1;
        for (int64_t few : FEW) {
            if (count < 0) count = collect(some_least(few), enough, true);
        }
        if (count < 0) {
            // All that is less than this weighs too little together to be needed. (`everything` is a sum of rounded sums.)
            const double least = (everything * (1 - 2e-6) - enough) / vocab_ * 0.99;
            count = collect(least > 0 ? static_cast<float>(least) : 0);
        }
        keep(count, vocab_, wanted, true);
    }

    // A weight that at least `count` tokens reach, or 0.
    float some_least(int64_t count) const {
        if (count > blocks_) return 0;
        std::memcpy(space_.spare, space_.largest, sizeof(float) * blocks_);
        std::nth_element(space_.spare, space_.spare + (count - 1), space_.spare + blocks_, std::greater<float>());
        return space_.spare[count - 1];
    }

    // Candidates, largest first. -1: they do not weigh `enough`.
    int64_t collect(float least, double enough = 0, bool may_fail = false) const {
        const int64_t count = pass_.collect[dtype_](row_, space_.largest, least, space_.candidates);
        if (may_fail) {
            double sum = 0;
            for (int64_t i = 0; i < count; i++) sum += space_.candidates[i];
            if (sum < enough) return -1;
        }
        sort_down(space_.candidates, count, space_.spare);
        return count;
    }

    // Candidates stay while the mass before them is less than `wanted`. complete: what is no candidate stays in no case.
    void keep(int64_t count, int64_t limit, double wanted, bool complete) {
        const float* values = space_.candidates;
        double running = 0;
        int64_t kept = 0;
        for (; kept < count && kept < limit; kept++) {
            running += values[kept];
            if (kept > 0 && !(running - values[kept] < wanted)) break;
        }
        if (kept == count && !complete) return;  // tokens of weight 0 stay too: nothing is cut off
        least_ = values[kept - 1];
        equal_ = 0;
        for (int64_t i = kept - 1; i >= 0 && values[i] == least_; i--) equal_++;
    }

    double filter_blocks() {
        const float least = least_ > 0 ? least_ : draw_.min_p;  // blocks below have nothing that stays
        int64_t equal = least_ > 0 ? equal_ : vocab_;
        double sum = 0;
        for (int64_t b = 0; b < blocks_; b++) {
            space_.equal[b] = equal;
            if (space_.largest[b] < least) {
                space_.sums[b] = 0;
                continue;
            }
            alignas(64) float weights[BLOCK];
            pass_.block[dtype_](row_, b, weights);
            space_.sums[b] = pass_.filter(weights, least_, draw_.min_p, &equal);
            sum += space_.sums[b];
        }
        return sum;
    }

    const RamifyDraw& draw_;
    const int64_t vocab_, blocks_;
    int32_t dtype_;
    const RamifySampling& pass_;
    Space space_;
    RamifyWeighed row_;
    float least_ = 0;
    int64_t equal_ = 0;
};

thread_local ramify::Scratch scratch;

// Fewer rows than threads. Kept per calling thread.
class Few {
  public:
    void sample(const RamifyDraw* draws, int64_t n, int64_t vocab, int32_t dtype, const RamifySampling& pass, int threads,
                char* memory, int64_t* tokens, uint8_t* bad) {
        blocks_ = (vocab + BLOCK - 1) / BLOCK, threads_ = threads, pieces_ = std::min(blocks_, threads * PIECES);
        rows_.clear();
        rows_.reserve(n);
        best_.resize(n * pieces_);
        open_.clear();
        for (int64_t i = 0; i < n; i++) {
            rows_.emplace_back(draws[i], vocab, dtype, pass, Space::in(memory + i * Space::bytes(blocks_), blocks_));
            open_.push_back(&rows_[i]);
        }
        scan(false);
        edited_.clear();
        auto is_edited = [&](Row* row) { return draws[row - rows_.data()].edited(); };
        std::copy_if(open_.begin(), open_.end(), std::back_inserter(edited_), is_edited);
        open_.erase(std::remove_if(open_.begin(), open_.end(), is_edited), open_.end());
        open_.swap(edited_);
        scan(true);
        open_.insert(open_.end(), edited_.begin(), edited_.end());
        pass_over([](Row& row, int64_t, int64_t first, int64_t last) { row.weigh(first, last); });
        const int64_t left = open_.size();
        ramify::in_chunks(left, 1, left > 1 ? threads : 1, [&](int64_t first, int64_t last) {
            for (int64_t i = first; i < last; i++) open_[i]->draw();
        });
        for (int64_t i = 0; i < n; i++) tokens[i] = rows_[i].bad ? -1 : rows_[i].token, bad[i] = rows_[i].bad;
    }

  private:
    // body(row, number of the piece, first block, last block) for the pieces of all rows that are open.
    template <class Body>
    void pass_over(const Body& body) {
        ramify::in_chunks(open_.size() * pieces_, 1, open_.empty() ? 1 : threads_, [&](int64_t first, int64_t last) {
            for (int64_t i = first; i < last; i++) {
                const int64_t piece = i % pieces_;
                body(*open_[i / pieces_], i, piece * blocks_ / pieces_, (piece + 1) * blocks_ / pieces_);
            }
        });
    }

    // Rows whose token is decided are open no longer.
    void scan(bool edited) {
        pass_over([&](Row& row, int64_t i, int64_t first, int64_t last) {
            best_[i] = edited ? row.edit(first, last) : row.scan(first, last);
        });
        size_t kept = 0;
        for (size_t i = 0; i < open_.size(); i++) {
            RamifyBest best = best_[i * pieces_];
            for (int64_t piece = 1; piece < pieces_ && !std::isnan(best.value); piece++) {
                const RamifyBest next = best_[i * pieces_ + piece];
                if (std::isnan(next.value) || next.value > best.value) best = next;
            }
            if (open_[i]->found(best, edited)) open_[kept++] = open_[i];
        }
        open_.resize(kept);
    }

    int64_t blocks_ = 0, pieces_ = 0;
    int threads_ = 1;
    std::vector<Row> rows_;
    std::vector<Row*> open_, edited_;
    std::vector<RamifyBest> best_;
};

thread_local Few thread_few;

}  // namespace

extern "C" void ramify_sample(const RamifyDraw* draws, int64_t n, int64_t vocab, int32_t dtype, int32_t level, int32_t threads,
                              int64_t* tokens, uint8_t* bad) {
    const RamifySampling& pass = passes(level);
    const int64_t blocks = (vocab + BLOCK - 1) / BLOCK, size = Space::bytes(blocks);
    threads = NS_PER_LOGIT * n * vocab < ramify::WORTH_WAKING_NS ? 1 : threads;
    if (n < threads) {
        return thread_few.sample(draws, n, vocab, dtype, pass, threads, scratch.bytes(n * size), tokens, bad);
    }
    ramify::in_chunks(n, 1, threads, [&](int64_t first, int64_t last) {
        const Space space = Space::in(scratch.bytes(size), blocks);
        for (int64_t i = first; i < last; i++) {
            Row row(draws[i], vocab, dtype, pass, space);
            bool open = row.found(row.scan(0, blocks), false);
            if (open && draws[i].edited()) open = row.found(row.edit(0, blocks), true);
            if (open) {
                row.weigh(0, blocks);
                row.draw();
            }
            tokens[i] = row.bad ? -1 : row.token, bad[i] = row.bad;
        }
    });
}

extern "C" void ramify_log_totals(const void* logits, int64_t stride, const int64_t* rows, int64_t n, int64_t vocab,
                                  int32_t dtype, int32_t level, int32_t threads, float* largest, double* totals) {
    const RamifySampling& pass = passes(level);
    const int64_t blocks = (vocab + BLOCK - 1) / BLOCK, size = Space::bytes(blocks), bytes = dtype == RAMIFY_BF16 ? 2 : 4;
    threads = ramify::threads_for(NS_PER_LOGIT * n * vocab, n, threads);
    ramify::in_chunks(n, 1, threads, [&](int64_t first, int64_t last) {
        const Space space = Space::in(scratch.bytes(size), blocks);
        for (int64_t i = first; i < last; i++) {
            RamifyDraw draw = {};
            draw.logits = static_cast<const char*>(logits) + rows[i] * stride * bytes;
            draw.inverse_temperature = 1;
            Row row(draw, vocab, dtype, pass, space);
            const RamifyBest best = row.scan(0, blocks);
            largest[i] = best.value;
            totals[i] = std::numeric_limits<double>::quiet_NaN();
            if (!row.found(best, false)) continue;
            row.weigh(0, blocks);
            totals[i] = row.total();
        }
    });
}

extern "C" void ramify_ranked(const void* logits, int64_t stride, const int64_t* rows, int64_t n, int64_t vocab, int64_t count,
                              int32_t dtype, int32_t level, int32_t threads, float* values, int64_t* ids) {
    const RamifySampling& pass = passes(level);
    const int64_t blocks = (vocab + BLOCK - 1) / BLOCK, bytes = dtype == RAMIFY_BF16 ? 2 : 4;
    threads = ramify::threads_for(NS_PER_LOGIT * n * vocab, n, threads);
    ramify::in_chunks(n, 1, threads, [&](int64_t first, int64_t last) {
        static thread_local std::vector<int32_t> largest, order;
        static thread_local std::vector<uint64_t> found;
        for (int64_t i = first; i < last; i++) {
            const char* row = static_cast<const char*>(logits) + rows[i] * stride * bytes;
            largest.resize(blocks);
            pass.key_maxima[dtype](row, vocab, largest.data());
            int32_t least = std::numeric_limits<int32_t>::min();
            if (count > 0 && count <= blocks) {
                order = largest;
                std::nth_element(order.begin(), order.begin() + (count - 1), order.end(), std::greater<int32_t>());
                least = order[count - 1];
            }
            found.clear();
            for (int64_t b = 0; b < blocks; b++) {
                if (largest[b] < least) continue;
                alignas(64) int32_t keys[BLOCK];
                pass.keys[dtype](row, vocab, b, keys);
                for (int64_t k = 0; k < BLOCK && b * BLOCK + k < vocab; k++) {
                    if (keys[k] < least) continue;
                    const uint64_t key = static_cast<uint32_t>(keys[k]) ^ 0x80000000u;
                    found.push_back(key << 32 | static_cast<uint32_t>(vocab - 1 - (b * BLOCK + k)));
                }
            }
            std::partial_sort(found.begin(), found.begin() + count, found.end(), std::greater<uint64_t>());
            for (int64_t k = 0; k < count; k++) {
                const int64_t id = vocab - 1 - static_cast<int64_t>(found[k] & 0xffffffffu);
                ids[i * count + k] = id;
                if (dtype == RAMIFY_FP32) {
                    std::memcpy(values + i * count + k, row + 4 * id, 4);
                } else {
                    uint16_t half;
                    std::memcpy(&half, row + 2 * id, 2);
                    const uint32_t bits = static_cast<uint32_t>(half) << 16;
                    std::memcpy(values + i * count + k, &bits, 4);
                }
            }
        }
    });
}
