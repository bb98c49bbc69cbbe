// Attention over pages on the CPU: K and V of a tile are read once per KV head, for all query rows that look at it.
//
// Threads take items (attention_work.h) from a shared counter. Within a tile, sums run in a fixed order (attention_inner.inc);
// tiles are merged in order of position. Which thread computed what, how spans were cut and what was read together leaves no
// trace in the bits.
#include "attention.h"

#include <atomic>
#include <cstring>
#include <vector>

#include "attention_level.h"
#include "attention_work.h"
#include "parallel.h"

namespace attention {
namespace {

constexpr float LOG2_E = 1.4426950408889634f;

#ifdef __x86_64__
const Level* const LEVELS[] = {&level0::LEVEL, &level1::LEVEL, &level2::LEVEL, &level3::LEVEL};
#else
const Level* const LEVELS[] = {&level0::LEVEL};
#endif

std::atomic<int64_t> bytes_read{0};

// What one thread needs to compute items.
class Worker {
  public:
    void begin(const RamifyAttention& call, Work& work) {
        call_ = &call, work_ = &work, level_ = LEVELS[call.level];
        const bool bf16 = call.q_dtype == RAMIFY_BF16 && call.kv_dtype == RAMIFY_BF16;
        attend_ = bf16 ? level_->bf16 : call.kv_dtype == RAMIFY_BF16 ? level_->bf16_keys : level_->fp32;
        if (call.kv_dtype == RAMIFY_INT8) attend_ = level_->int8;
        bf16_queries_ = bf16 && level_->bf16_queries;
        kv_row_ = kv_row(call), kv_size_ = kv_size(call.kv_dtype);
        keys_read_ = 0;
        ahead_ = false;
        const int64_t at_once = padded(work.group > BLOCK_ROWS ? work.group : BLOCK_ROWS), part = at_once * (2 + call.head_dim);
        const int64_t all = 2 * padded(work.most_rows) + STRIP;  // each chunk of an item begins at a multiple of 16 rows
        const int64_t packed = STRIPS_AT_ONCE * STRIP * int64_t(call.head_dim);
        const int64_t sums = all * (2 + call.head_dim);
        const int64_t sizes[] = {packed, at_once * SCORES_ROW, at_once * TILE, at_once, all * call.head_dim, all, part, part, sums};
        float** places[] = {&space_.packed,  &space_.scores, &space_.weights, &space_.value_scales, &queries_,
                            &query_scales_, &sum_,          &next_,          &sums_};
        int64_t total = 0;
        for (int64_t size : sizes) total += size;
        float* memory = buffer_.floats(total);
        for (int i = 0; i < 9; i++) {
            *places[i] = memory;
            memory += sizes[i];
        }
        all_rows_ = all;
        groups_.resize(at_once);
        row_first_.resize(at_once), row_last_.resize(at_once), row_low_.resize(at_once), row_high_.resize(at_once);
        segments_.reserve(2 * at_once);
        runs_.resize(4 * at_once + 1);
        space_.groups = groups_.data(), space_.runs = runs_.data();
        space_.row_first = row_first_.data(), space_.row_last = row_last_.data();
    }

    // follows: what this thread runs next, if it knows. Returns false where a page is not in the pool.
    bool run(const Item& item, const Item* follows) {
        const bool ahead = ahead_;
        ahead_ = false;
        return item.block < 0 ? run_piece(item) : run_block(item, follows, ahead);
    }

    int64_t bytes() const {  // read since `begin`: K and V
        return 2 * keys_read_ * kv_row_ * kv_size_;
    }

  private:
    // Keys [low, high) of a tile, and where they lie in a pool, in elements.
    struct Keys {
        int low, high;
        int64_t offset[TILE];
    };

    // Members of a piece whose rows are computed together: `rows` of each head, from row `row` of the item on.
    struct Chunk {
        int first, last, rows, row;
    };

    // ahead: the item before has found the first tile's keys, and asked memory for them.
    bool run_block(const Item& item, const Item* follows, bool ahead) {
        const Block& block = work_->blocks[item.block];
        const int rows = work_->rows(block);
        load_queries(block, 0, block.heads, 0, work_->rows_of_head(block));
        Part sum = Work::lay_out(sum_, rows), next = Work::lay_out(next_, rows);
        clear(sum, rows);
        clear_weights(next, rows);
        if (!ahead && !find(block, item.tile, keys_[at_])) return false;
        for (int i = 0; i < item.tiles; i++, at_ = 1 - at_) {
            const bool more = i + 1 < item.tiles;
            const Keys &keys = keys_[at_], &next_keys = keys_[1 - at_];
            if (more && !find(block, item.tile + i + 1, keys_[1 - at_])) return false;
            if (!more && follows) ahead_ = find(work_->blocks[follows->block], follows->tile, keys_[1 - at_]);
            if (block.parts >= 0) next = work_->part(block, item.tile + i);
            segments_.assign(1, {keys.offset, 0, work_->rows_of_head(block), keys.low, keys.high});
            see(block, block.first_tile + item.tile + i, 0);
            keys_read_ += int64_t(keys.high - keys.low) * block.heads;
            const Next then = {i == 0 && !ahead, true, more || ahead_ ? &next_keys : nullptr};
            attend(block.head, block.heads, work_->rows_of_head(block), 0, then, next);
            if (block.parts < 0) level_->merge(sum, next, rows, call_->head_dim);
        }
        if (block.parts < 0) {
            write(block, sum);
        } else {
            finish(block, item.tiles * block.heads);
        }
        return true;
    }

    bool run_piece(const Item& item) {
        const Piece& piece = work_->pieces[item.piece];
        const Block& block = work_->blocks[work_->members[item.first].block];  // any that reads the piece
        const bool folds = item.tile == 0 && item.tiles > 1;
        find_chunks(item);
        for (const Chunk& chunk : chunks_) {
            if (folds) clear(sum_of(chunk), chunk.rows * item.heads);
        }
        if (piece.whole && !find(block, item.tile, keys_[0])) return false;
        for (int i = 0; i < item.tiles; i++) {
            const int tile = item.tile + i;
            const bool more = i + 1 < item.tiles;
            const Keys& keys = keys_[i % 2];
            if (more && !find(block, tile + 1, keys_[1 - i % 2])) return false;
            if (!piece.whole) keys_read_ += int64_t(keys_of(item, tile)) * item.heads;
            for (const Chunk& chunk : chunks_) {
                const bool head = chunk.first == item.first;
                segments_.clear();
                if (piece.whole) {
                    segments_.push_back({keys.offset, 0, chunk.rows, 0, TILE});
                    if (head) keys_read_ += int64_t(TILE) * item.heads;
                } else if (!find_segments(chunk, tile)) {
                    return false;
                }
                for (int m = chunk.first, row = 0; m < chunk.last; row += work_->members[m++].rows) {
                    see(work_->blocks[work_->members[m].block], tile, row);
                }
                const int rows = chunk.rows * item.heads;
                const Part part = Work::lay_out(next_, rows);
                clear_weights(part, rows);
                const Next then = {i == 0 && head, head || !piece.whole, more && head ? &keys_[1 - i % 2] : nullptr};
                attend(item.head, item.heads, chunk.rows, chunk.row, then, part);
                if (folds) level_->merge(sum_of(chunk), part, rows, call_->head_dim);
                if (!folds) hand_out(item, chunk, part, tile);
            }
        }
        for (const Chunk& chunk : chunks_) {
            if (folds) hand_out(item, chunk, sum_of(chunk), item.tile);
        }
        for (int m = item.first; m < item.last; m++) {
            for_heads(item, m, [&](const Block& block, int, int heads) { finish(block, item.tiles * heads); });
        }
        return true;
    }

    // Cuts the item's members into chunks, and loads their queries.
    void find_chunks(const Item& item) {
        chunks_.clear();
        for (int first = item.first, row = 0; first < item.last; first = chunks_.back().last) {
            const int last = work_->chunk_end(first, item.last, BLOCK_ROWS), rows = work_->rows_of(first, last);
            chunks_.push_back({first, last, rows, row});
            for (int m = first, before = 0; m < last; before += work_->members[m++].rows) {
                for_heads(item, m, [&](const Block& block, int head, int heads) {
                    load_queries(block, head - block.head, heads, row + int64_t(head - item.head) * rows + before, rows);
                });
            }
            row += static_cast<int>(padded(rows * item.heads));
        }
    }

    // Calls use(block, head, heads) for each block of the member that has some of the item's heads.
    template <class Use>
    void for_heads(const Item& item, int member, Use use) {
        const int end = item.head + item.heads, step = work_->members[member].heads;
        for (int head = item.head, next; head < end; head = next) {
            const Block& block = work_->blocks[work_->members[member].block + head / step];
            next = block.head + block.heads < end ? block.head + block.heads : end;
            use(block, head, next - head);
        }
    }

    Part sum_of(const Chunk& chunk) const {
        const int64_t row = chunk.row;
        return {sums_ + row, sums_ + all_rows_ + row, sums_ + 2 * all_rows_ + row * call_->head_dim};
    }

    // Copies a result of a chunk to the parts of its members' blocks.
    void hand_out(const Item& item, const Chunk& chunk, const Part& from, int tile) {
        const int head_dim = call_->head_dim;
        for (int m = chunk.first, before = 0; m < chunk.last; before += work_->members[m++].rows) {
            const int rows = work_->members[m].rows;
            for_heads(item, m, [&](const Block& block, int first, int heads) {
                const Part to = work_->part(block, tile);
                for (int head = first; head < first + heads; head++) {
                    const int64_t a = int64_t(head - item.head) * chunk.rows + before, b = int64_t(head - block.head) * rows;
                    std::memcpy(to.top + b, from.top + a, sizeof(float) * rows);
                    std::memcpy(to.total + b, from.total + a, sizeof(float) * rows);
                    std::memcpy(to.out + b * head_dim, from.out + a * head_dim, sizeof(float) * rows * head_dim);
                }
            });
        }
    }

    // The last who brings results of a block merges them all.
    void finish(const Block& block, int brought) {
        if (work_->to_come[block.counter].fetch_sub(brought, std::memory_order_acq_rel) > brought) return;
        const int rows = work_->rows(block);
        Part sum = Work::lay_out(sum_, rows);
        clear(sum, rows);
        for (int i = 0; i < work_->results(block); i++) level_->merge(sum, work_->result(block, i), rows, call_->head_dim);
        write(block, sum);
    }

    void clear(const Part& part, int rows) {
        clear_weights(part, rows);
        std::memset(part.out, 0, sizeof(float) * rows * call_->head_dim);
    }

    void clear_weights(const Part& part, int rows) {
        for (int r = 0; r < padded(rows); r++) part.top[r] = LOWEST, part.total[r] = 0;
    }

    bool find(const Block& block, int tile_of_block, Keys& keys) {
        const int base = (block.first_tile + tile_of_block) * TILE;
        keys.low = block.lowest > base ? block.lowest - base : 0;
        keys.high = block.highest + 1 - base < TILE ? block.highest + 1 - base : TILE;
        return find(block, base, keys.low, keys.high, keys.offset);
    }

    bool find(const Block& block, int base, int low, int high, int64_t* offset) {
        const int64_t slot_size = int64_t(call_->num_kv_heads) * kv_row_;
        const int size = call_->page_size;
        bool good = true;
        for (int key = low; key < high; key++) {
            const int position = base + key;
            const int64_t page = block.pages[size == 1 ? position : position / size];
            const int64_t slot = size == 1 ? page : page * size + position % size;
            good &= static_cast<uint64_t>(slot) < static_cast<uint64_t>(call_->slots);
            offset[key - low] = slot * slot_size;
        }
        return good;
    }

    // Slots that an item's members have in a tile.
    int keys_of(const Item& item, int tile) const {
        int keys = 0;
        for (int m = item.first; m < item.last; m++) {
            const int end = work_->blocks[work_->members[m].block].highest + 1 - tile * TILE;
            keys += (end < TILE ? end : TILE) - (m == item.first ? 0 : work_->shared_keys(m, tile));
        }
        return keys;
    }

    // The tree of what a chunk's members share of a tile.
    bool find_segments(const Chunk& chunk, int tile) {
        offsets_.clear();
        found_ = true;
        add_segments(chunk.first, chunk.last, 0, tile, 0);
        int64_t* offset = offsets_.data();
        for (Segment& segment : segments_) {
            segment.offset = offset;
            offset += segment.high - segment.low;
        }
        return found_;
    }

    // Members [first, last), whose rows begin at `row`, share keys before `low`.
    void add_segments(int first, int last, int row, int tile, int low) {
        const Block& block = work_->blocks[work_->members[first].block];
        const int rows = work_->rows_of(first, last), end = block.highest + 1 - tile * TILE;
        int high = end < TILE ? end : TILE;
        for (int m = first + 1; m < last; m++) {
            const int shared = work_->shared_keys(m, tile) / STRIP * STRIP;
            high = shared < high ? shared : high;
        }
        if (high > low) {
            const size_t before = offsets_.size();
            offsets_.resize(before + high - low);
            found_ &= find(block, tile * TILE, low, high, offsets_.data() + before);
            segments_.push_back({nullptr, row, rows, low, high});
        }
        if (last - first == 1) return;
        for (int m = first, next; m < last; m = next) {
            for (next = m + 1; next < last && work_->shared_keys(next, tile) >= high + STRIP;) next++;
            add_segments(m, next, row, tile, high);
            row += work_->rows_of(m, next);
        }
    }

    // What a block's rows of one head see of a tile, as rows `row` and following of the tile's.
    void see(const Block& block, int tile, int row) {
        const int base = tile * TILE;
        for (int r = 0; r < work_->rows_of_head(block); r++) {
            const int position = block.position + r / work_->group;
            const int lowest = call_->window > 0 ? position - call_->window + 1 : 0;
            const int highest = call_->causal ? position : block.highest;
            row_low_[row + r] = lowest > base ? lowest - base : 0;
            row_high_[row + r] = highest + 1 - base < TILE ? highest + 1 - base : TILE;
        }
    }

    // How a tile follows on the one before it, and what follows on it.
    struct Next {
        bool first, streamed;
        const Keys* keys;
    };

    // query: the first of the queries that were loaded.
    void attend(int head, int heads, int rows, int64_t query, const Next& next, const Part& part) {
        const RamifyAttention& call = *call_;
        const int64_t skip = int64_t(head) * kv_row_ * kv_size_;
        Tile tile;
        tile.keys = static_cast<const char*>(call.k_pool) + skip;
        tile.values = static_cast<const char*>(call.v_pool) + skip;
        tile.segments = segments_.data(), tile.num_segments = static_cast<int>(segments_.size());
        tile.heads = heads, tile.rows = rows, tile.head_dim = call.head_dim, tile.kv_row = kv_row_;
        tile.first = next.first, tile.streamed = next.streamed;
        tile.next_offset = next.keys ? next.keys->offset : nullptr;
        const int following = next.keys ? next.keys->high - next.keys->low : 0;
        tile.next_keys = following < KEYS_AHEAD ? following : KEYS_AHEAD;
        tile.queries = queries_ + query * row_floats(), tile.query_scales = query_scales_ + query;
        tile.row_low = row_low_.data(), tile.row_high = row_high_.data();
        tile.scale = call.soft_cap > 0 ? call.scale / call.soft_cap : call.scale * LOG2_E;
        tile.cap = call.soft_cap * LOG2_E;
        attend_(tile, part, space_);
    }

    bool whole() const { return call_->kv_dtype == RAMIFY_INT8; }  // queries are rounded to int16
    int64_t row_floats() const { return bf16_queries_ || whole() ? call_->head_dim / 2 : call_->head_dim; }  // of a row of queries

    // Queries of heads [first, first + heads) of the block, in bf16, int16 or fp32, as queries `query` and following: each head's
    // rows follow `rows` on the last's.
    void load_queries(const Block& block, int first, int heads, int64_t query, int rows) {
        const int bytes = call_->q_dtype == RAMIFY_BF16 ? 2 : 4;
        const int64_t count = int64_t(work_->group) * call_->head_dim;
        for (int64_t i = 0; i < int64_t(heads) * block.length; i++) {
            const int64_t head = i / block.length, position = i % block.length;
            const int64_t place = (block.token + position) * call_->q_stride + (block.head + first + head) * count;
            const char* from = static_cast<const char*>(call_->q) + place * bytes;
            const int64_t row = query + head * rows + position * work_->group;
            float* to = queries_ + row * row_floats();
            if (whole()) {
                for (int64_t k = 0; k < work_->group; k++) {
                    level_->round_query(from + k * call_->head_dim * bytes, bytes == 2, call_->head_dim, to + k * row_floats(),
                                        query_scales_ + row + k);
                }
                continue;
            }
            if (bytes == 4 || bf16_queries_) {
                std::memcpy(to, from, count * bytes);
                continue;
            }
            for (int64_t k = 0; k < count; k++) {
                uint16_t half;
                std::memcpy(&half, from + 2 * k, 2);
                const uint32_t bits = static_cast<uint32_t>(half) << 16;
                std::memcpy(to + k, &bits, 4);
            }
        }
    }

    void write(const Block& block, const Part& sum) {
        const int head_dim = call_->head_dim, group = work_->group, rows = work_->rows_of_head(block);
        for (int r = 0; r < work_->rows(block); r++) {
            const float* from = sum.out + int64_t(r) * head_dim;
            const float share = 1.0f / sum.total[r];
            const int head = (block.head + r / rows) * group + r % group;
            const int64_t place = ((block.token + r % rows / group) * call_->num_heads + head) * head_dim;
            if (call_->q_dtype == RAMIFY_FP32) {
                float* to = static_cast<float*>(call_->out) + place;
                for (int i = 0; i < head_dim; i++) to[i] = from[i] * share;
                continue;
            }
            uint16_t* to = static_cast<uint16_t*>(call_->out) + place;
            for (int i = 0; i < head_dim; i++) {  // to nearest, ties to even
                const float x = from[i] * share;
                uint32_t bits;
                std::memcpy(&bits, &x, 4);
                const bool nan = (bits & 0x7fffffff) > 0x7f800000;
                to[i] = nan ? 0x7fc0 : static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
            }
        }
    }

    const RamifyAttention* call_ = nullptr;
    Work* work_ = nullptr;
    const Level* level_ = nullptr;
    Attend* attend_ = nullptr;
    bool bf16_queries_ = false, found_ = true;
    int kv_row_ = 0, kv_size_ = 0;          // elements from one head to the next, and bytes of an element
    int64_t keys_read_ = 0, all_rows_ = 0;  // keys: of one head
    Buffer buffer_;
    Space space_ = {};
    float *queries_ = nullptr, *query_scales_ = nullptr, *sum_ = nullptr, *next_ = nullptr, *sums_ = nullptr;
    Keys keys_[2];  // of a tile, and of the one that follows
    int at_ = 0;
    bool ahead_ = false;
    std::vector<Chunk> chunks_;
    std::vector<Segment> segments_;
    std::vector<int64_t> offsets_;
    std::vector<Run> runs_;
    std::vector<Group> groups_;
    std::vector<int> row_first_, row_last_, row_low_, row_high_;
};

thread_local Work thread_work;
thread_local Worker thread_worker;

}  // namespace
}  // namespace attention

extern "C" int32_t ramify_best_level() {
#ifdef __x86_64__
    __builtin_cpu_init();
    if (!(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))) return 0;
    if (!(__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
          __builtin_cpu_supports("avx512dq"))) {
        return 1;
    }
    return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni") ? 3 : 2;
#else
    return 0;
#endif
}

extern "C" int64_t ramify_attention_bytes() { return attention::bytes_read.load(std::memory_order_relaxed); }

extern "C" int32_t ramify_attention(const RamifyAttention* call) {
    using namespace attention;
    Work& work = thread_work;
    work.cut(*call);
    const int count = static_cast<int>(work.items.size());
    std::atomic<int> next{count};  // from the last on: pieces first, and in a causal span the block with the longest context
    std::atomic<bool> good{true};
    auto take = [&] {
        Worker& worker = thread_worker;
        worker.begin(*call, work);
        auto draw = [&] { return next.fetch_sub(1, std::memory_order_relaxed) - 1; };
        for (int i = draw(), following; i >= 0; i = following) {
            const bool looks_ahead = work.is_short(i);  // memory would have nothing to do between short items
            if (looks_ahead) following = draw();
            const Item* follows = looks_ahead && following >= 0 && work.alike(i, following) ? &work.items[following] : nullptr;
            if (!worker.run(work.items[i], follows)) good.store(false, std::memory_order_relaxed);
            if (!looks_ahead) following = draw();
        }
        bytes_read.fetch_add(worker.bytes(), std::memory_order_relaxed);
    };
    ramify::parallel(count == 1 ? 1 : work.threads, take);
    return good.load() ? 0 : 1;
}
