// Attention over pages on the CPU: K and V of a tile are read once per KV head, for all query rows that look at it.
//
//   span    -> blocks of up to 64 query rows: a row is a position and a query head; few positions come with all heads
//   block   -> tiles of keys, cut at absolute multiples of 256 positions
//   item    =  a block and all its tiles, or some of them where a thread would be the last for too long
//
// Threads take items from a shared counter. Within a tile, sums run in a fixed order (attention_inner.inc); tiles are merged in
// order of position. Which thread computed what, and how spans were cut, leaves no trace in the bits.
#include "attention.h"

#include "parallel.h"

#include <array>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#ifdef __x86_64__
#include <immintrin.h>
#endif

namespace {

constexpr int TILE = 256, STRIP = 16, STRIPS_AT_ONCE = 4, KEYS_AHEAD = 64;
constexpr int BLOCK_ROWS = 64;
constexpr int SHARES_PER_THREAD = 8;   // an item is at most an eighth of a thread's work, or one tile
constexpr int WORK_TO_WEIGH = 20;      // vector operations that 16 weights of the softmax cost, about
constexpr int COST_OF_HEAD = 8;        // to bring a head's key and value into order costs about as much as 8 rows' products
constexpr int COST_OF_THREADS = 8192;  // keys times rows, about 10 us: below, waking another thread costs more than it brings
constexpr float LOWEST = -1e30f;       // finite: a tile in which a row sees nothing stays finite too, with weight 0
constexpr float LOG2_E = 1.4426950408889634f;

alignas(64) const float ZEROS[256] = {};

// A tile as a block sees it, for some KV heads. Keys [low, high) of 256 are read, at these elements of the pools; of them row r
// of each head sees [row_low[r], row_high[r]). Scores are scale * q.k, or cap * tanh(scale * q.k), in powers of two.
struct Tile {
    const void *keys, *values;  // of the first head
    const int64_t* offset;
    int low, high, heads, rows, head_dim;
    bool first;  // nobody has asked memory for it yet
    const int64_t* next_offset;  // the tile that the same thread reads next, keys [next_low, next_high); none if they are equal
    int next_low, next_high;
    const float* queries;  // [heads][rows][units]
    const int *row_low, *row_high;
    float scale, cap;
};

// softmax numerator of some tiles times V, [heads * rows][head_dim]; each row's largest score and sum of weights.
struct Part {
    float *top, *total, *out;
};

// Query rows that are multiplied together; they see some of strips [first, last).
struct Group {
    int row, size, first, last;
};

struct Space {
    float *packed, *scores, *weights;
    Group* groups;
};

using Attend = void(const Tile&, const Part&, const Space&);

struct Level {
    Attend *fp32, *bf16_keys, *bf16;  // KV in fp32; KV in bf16 and q in fp32; both in bf16
    bool bf16_queries;                // the last takes q as it is; everything else takes q in fp32
    void (*merge)(const Part& sum, const Part& next, int rows, int head_dim);
};

#define RAMIFY_LEVEL 0
#include "level_begin.inc"
#include "attention_inner.inc"
#include "attention_tile.inc"
#include "level_end.inc"
#ifdef __x86_64__
#define RAMIFY_LEVEL 1
#include "level_begin.inc"
#include "attention_inner.inc"
#include "attention_tile.inc"
#include "level_end.inc"
#define RAMIFY_LEVEL 2
#include "level_begin.inc"
#include "attention_inner.inc"
#include "attention_tile.inc"
#include "level_end.inc"
#define RAMIFY_LEVEL 3
#include "level_begin.inc"
#include "attention_inner.inc"
#include "attention_tile.inc"
#include "level_end.inc"
constexpr Level LEVELS[] = {level0::LEVEL, level1::LEVEL, level2::LEVEL, level3::LEVEL};
#else
constexpr Level LEVELS[] = {level0::LEVEL};
#endif

// Memory that grows and is kept, aligned to cache lines.
class Buffer {
  public:
    ~Buffer() { std::free(data_); }
    float* floats(int64_t count) {
        if (count > held_) {
            std::free(data_);
            held_ = (count + count / 4 + 15) / 16 * 16;
            data_ = static_cast<float*>(std::aligned_alloc(64, held_ * sizeof(float)));
            if (!data_) {
                held_ = 0;
                throw std::bad_alloc();
            }
        }
        return data_;
    }

  private:
    float* data_ = nullptr;
    int64_t held_ = 0;
};

int64_t padded(int64_t count) { return (count + 15) / 16 * 16; }

// Some positions of a span, for KV heads [head, head + heads). Its rows see keys from `lowest` to `highest` of the sequence, in
// tiles first_tile ... + tiles - 1.
struct Block {
    const int32_t* pages;
    int64_t token;
    int position, length, lowest, highest, first_tile, tiles, head, heads;
    int64_t parts;  // where the results of its tiles lie; -1: one thread computes all of them, and merges as it goes
    int counter;    // of tiles that are still to come
};

struct Item {
    int block, tile, tiles;
};

// A call cut into items. Kept per calling thread, so that a step allocates nothing.
class Work {
  public:
    void cut(const RamifyAttention& call) {
        group = call.num_heads / call.num_kv_heads;
        head_dim = call.head_dim;
        add_blocks(call);
        double total = 0;
        for (const Block& block : blocks) total += cost(block);
        threads = total < COST_OF_THREADS ? 1 : call.threads;
        const double share = total / (SHARES_PER_THREAD * threads);
        int64_t parts = 0;
        int counters = 0;
        items.clear();
        for (size_t i = 0; i < blocks.size(); i++) {
            Block& block = blocks[i];
            int at_once = block.tiles;
            if (threads > 1 && block.tiles > 1 && cost(block) > share) {
                at_once = static_cast<int>(share / cost(block) * block.tiles);
                if (at_once < 1) at_once = 1;
                block.parts = parts, block.counter = counters++;
                parts += part_size(block) * block.tiles;
            }
            for (int tile = 0; tile < block.tiles; tile += at_once) {
                items.push_back({static_cast<int>(i), tile, at_once < block.tiles - tile ? at_once : block.tiles - tile});
            }
        }
        part_memory_ = parts ? part_buffer_.floats(parts) : nullptr;
        if (counters > num_counters_) to_come.reset(new std::atomic<int>[num_counters_ = 2 * counters]);
        for (const Block& block : blocks) {
            if (block.parts >= 0) to_come[block.counter].store(block.tiles, std::memory_order_relaxed);
        }
    }

    int rows_of_head(const Block& block) const { return block.length * group; }
    int rows(const Block& block) const { return block.heads * block.length * group; }
    int most_rows() const { return group > BLOCK_ROWS ? group : BLOCK_ROWS; }
    Part part(const Block& block, int tile) const {
        return lay_out(part_memory_ + block.parts + part_size(block) * tile, rows(block));
    }
    static Part lay_out(float* memory, int rows) { return {memory, memory + padded(rows), memory + 2 * padded(rows)}; }

    std::vector<Block> blocks;
    std::vector<Item> items;
    std::unique_ptr<std::atomic<int>[]> to_come;
    int group = 1, head_dim = 0, threads = 1;

  private:
    void add_blocks(const RamifyAttention& call) {
        blocks.clear();
        const int most = BLOCK_ROWS / group > 0 ? BLOCK_ROWS / group : 1;
        for (int span = 0; span < call.spans; span++) {
            for (int done = 0; done < call.query_length[span]; done += most) {
                Block b;
                b.pages = call.page_table + call.row[span] * call.page_table_stride;
                b.token = int64_t(call.query_start[span]) + done;
                b.position = call.start[span] + done;
                b.length = most < call.query_length[span] - done ? most : call.query_length[span] - done;
                b.highest = call.causal ? b.position + b.length - 1 : call.start[span] + call.query_length[span] - 1;
                b.lowest = call.window > 0 && b.position >= call.window ? b.position - call.window + 1 : 0;
                b.first_tile = b.lowest / TILE;
                b.tiles = b.highest / TILE - b.first_tile + 1;
                b.parts = -1, b.counter = 0;
                const int heads = most_rows() / rows_of_head(b);
                for (b.head = 0; b.head < call.num_kv_heads; b.head += b.heads) {
                    b.heads = heads < call.num_kv_heads - b.head ? heads : call.num_kv_heads - b.head;
                    blocks.push_back(b);
                }
            }
        }
    }

    int64_t part_size(const Block& block) const { return 2 * padded(rows(block)) + int64_t(rows(block)) * head_dim; }
    double cost(const Block& block) const {
        return static_cast<double>(block.highest - block.lowest + 1) * (rows(block) + COST_OF_HEAD * block.heads);
    }

    Buffer part_buffer_;
    float* part_memory_ = nullptr;
    int num_counters_ = 0;
};

// What one thread needs to compute items.
class Worker {
  public:
    void begin(const RamifyAttention& call, Work& work) {
        call_ = &call, work_ = &work, level_ = &LEVELS[call.level];
        const bool bf16 = call.q_dtype == RAMIFY_BF16 && call.kv_dtype == RAMIFY_BF16;
        attend_ = bf16 ? level_->bf16 : call.kv_dtype == RAMIFY_BF16 ? level_->bf16_keys : level_->fp32;
        bf16_queries_ = bf16 && level_->bf16_queries;
        const int64_t rows = padded(work.most_rows()), part = 2 * rows + rows * call.head_dim;
        const int64_t packed = STRIPS_AT_ONCE * STRIP * int64_t(call.head_dim);
        const int64_t sizes[] = {packed, rows * TILE, rows * TILE, rows * call.head_dim, part, part};
        float** places[] = {&space_.packed, &space_.scores, &space_.weights, &queries_, &sum_, &next_};
        int64_t total = 0;
        for (int64_t size : sizes) total += size;
        float* memory = buffer_.floats(total);
        for (int i = 0; i < 6; i++) {
            *places[i] = memory;
            memory += sizes[i];
        }
        groups_.resize(rows);
        space_.groups = groups_.data();
        row_low_.resize(rows);
        row_high_.resize(rows);
    }

    bool run(const Item& item) {  // false: a page lies outside of the pool
        const Block& block = work_->blocks[item.block];
        const int rows = work_->rows(block);
        load_queries(block);
        Part sum = Work::lay_out(sum_, rows), next = Work::lay_out(next_, rows);
        clear(sum, rows);
        clear(next, 0);
        if (!find(block, item.tile, 0)) return false;
        for (int i = 0; i < item.tiles; i++) {
            const bool more = i + 1 < item.tiles;
            if (more && !find(block, item.tile + i + 1, (i + 1) % 2)) return false;
            if (block.parts >= 0) next = work_->part(block, item.tile + i);
            attend(block, item.tile + i, i % 2, i == 0, more, next);
            if (block.parts < 0) level_->merge(sum, next, rows, call_->head_dim);
        }
        if (block.parts >= 0) {
            if (work_->to_come[block.counter].fetch_sub(item.tiles, std::memory_order_acq_rel) > item.tiles) return true;
            for (int tile = 0; tile < block.tiles; tile++) level_->merge(sum, work_->part(block, tile), rows, call_->head_dim);
        }
        write(block, sum);
        return true;
    }

  private:
    // Keys of a tile that the block sees, and where they lie in a pool, in elements.
    struct Keys {
        int low, high;
        int64_t offset[TILE];
    };

    void clear(const Part& part, int rows) {
        const int all = work_->most_rows();
        for (int r = 0; r < padded(all); r++) part.top[r] = LOWEST, part.total[r] = 0;
        std::memset(part.out, 0, sizeof(float) * rows * call_->head_dim);
    }

    bool find(const Block& block, int tile_of_block, int place) {
        const int64_t slot_size = int64_t(call_->num_kv_heads) * call_->head_dim;
        const int base = (block.first_tile + tile_of_block) * TILE, size = call_->page_size;
        Keys& keys = keys_[place];
        keys.low = block.lowest > base ? block.lowest - base : 0;
        keys.high = block.highest + 1 - base < TILE ? block.highest + 1 - base : TILE;
        bool good = true;
        for (int key = keys.low; key < keys.high; key++) {
            const int position = base + key;
            const int64_t page = block.pages[size == 1 ? position : position / size];
            const int64_t slot = size == 1 ? page : page * size + position % size;
            good &= static_cast<uint64_t>(slot) < static_cast<uint64_t>(call_->slots);
            keys.offset[key] = slot * slot_size;
        }
        return good;
    }

    void attend(const Block& block, int tile_of_block, int place, bool first, bool more, const Part& part) {
        const RamifyAttention& call = *call_;
        const int base = (block.first_tile + tile_of_block) * TILE;
        const Keys &keys = keys_[place], &next = keys_[1 - place];
        const int64_t skip = int64_t(block.head) * call.head_dim * (call.kv_dtype == RAMIFY_BF16 ? 2 : 4);
        Tile tile;
        tile.keys = static_cast<const char*>(call.k_pool) + skip;
        tile.values = static_cast<const char*>(call.v_pool) + skip;
        tile.offset = keys.offset, tile.low = keys.low, tile.high = keys.high;
        tile.first = first;
        tile.next_offset = next.offset, tile.next_low = more ? next.low : 0, tile.next_high = more ? next.high : 0;
        tile.heads = block.heads, tile.rows = work_->rows_of_head(block), tile.head_dim = call.head_dim;
        tile.queries = queries_;
        for (int r = 0; r < tile.rows; r++) {
            const int position = block.position + r / work_->group;
            const int lowest = call.window > 0 ? position - call.window + 1 : 0, highest = call.causal ? position : block.highest;
            row_low_[r] = lowest > base ? lowest - base : 0;
            row_high_[r] = highest + 1 - base < TILE ? highest + 1 - base : TILE;
        }
        tile.row_low = row_low_.data(), tile.row_high = row_high_.data();
        tile.scale = call.soft_cap > 0 ? call.scale / call.soft_cap : call.scale * LOG2_E;
        tile.cap = call.soft_cap * LOG2_E;
        attend_(tile, part, space_);
    }

    // The block's queries as [heads][rows][head_dim], in bf16 or in fp32.
    void load_queries(const Block& block) {
        const int bytes = call_->q_dtype == RAMIFY_BF16 ? 2 : 4;
        const int64_t count = int64_t(work_->group) * call_->head_dim;
        for (int64_t i = 0; i < int64_t(block.heads) * block.length; i++) {
            const int64_t place = (block.token + i % block.length) * call_->q_stride + (block.head + i / block.length) * count;
            const char* from = static_cast<const char*>(call_->q) + place * bytes;
            if (bytes == 4 || bf16_queries_) {
                std::memcpy(reinterpret_cast<char*>(queries_) + i * count * bytes, from, count * bytes);
                continue;
            }
            for (int64_t k = 0; k < count; k++) {
                uint16_t half;
                std::memcpy(&half, from + 2 * k, 2);
                const uint32_t bits = static_cast<uint32_t>(half) << 16;
                std::memcpy(queries_ + i * count + k, &bits, 4);
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
    bool bf16_queries_ = false;
    Buffer buffer_;
    Space space_ = {};
    float *queries_ = nullptr, *sum_ = nullptr, *next_ = nullptr;
    Keys keys_[2];
    std::vector<Group> groups_;
    std::vector<int> row_low_, row_high_;
};

thread_local Work thread_work;
thread_local Worker thread_worker;

}  // namespace

extern "C" int32_t ramify_best_level() {
#ifdef __x86_64__
    __builtin_cpu_init();
    if (!(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))) return 0;
    if (!(__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
          __builtin_cpu_supports("avx512dq"))) {
        return 1;
    }
    return __builtin_cpu_supports("avx512bf16") ? 3 : 2;
#else
    return 0;
#endif
}

extern "C" int32_t ramify_attention(const RamifyAttention* call) {
    Work& work = thread_work;
    work.cut(*call);
    const int count = static_cast<int>(work.items.size());
    std::atomic<int> next{count};  // from the last on: in a causal span that is the one with the longest context
    std::atomic<bool> good{true};
    auto take = [&] {
        Worker& worker = thread_worker;
        worker.begin(*call, work);
        for (int i; (i = next.fetch_sub(1, std::memory_order_relaxed) - 1) >= 0;) {
            if (!worker.run(work.items[i])) good.store(false, std::memory_order_relaxed);
        }
    };
    ramify::parallel(count == 1 ? 1 : work.threads, take);
    return good.load() ? 0 : 1;
}
