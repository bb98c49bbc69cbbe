// Linear layers on the CPU. A thread takes blocks of 64 outputs from a shared counter; with many rows, a block meets them in
// tiles that stay in the cache.
//
// Weights of bf16 that meet more rows than one pass takes are asked for ahead: while a part of them, which lies in a cache, is
// multiplied with one row after another, the next part is on its way, evenly over all passes. So memory and processor work at
// the same time; without it, the first pass over a part waits for memory and the others leave memory idle. With a single pass
// the processor sees by itself that weights are read in order, and was up to 15 % slower with prefetches in the loop.
//
// An output is summed over all columns in one order. Which thread computed it, and which rows came with it, leaves no
// trace in the bits.
#include "linear.h"

#include "parallel.h"

#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <new>
#include <thread>

namespace ramify_linear {
namespace {

constexpr int TILE_ROWS = 96;             // at most; their sums and a part of the weights stay near the core
// Of weights, read once for all rows of a tile. A part of integers is a block, as a rule, and lies in the second cache: cut into
// parts of 8 KiB, a stream of weights came at three quarters of the rate.
constexpr int64_t INTEGER_PART_BYTES = 256 << 10;
// In bf16 sums stay in registers for a whole chain. Up to 24 rows memory is the bound or near it: what is asked for a short time
// ahead comes at the highest rate.
constexpr int DENSE_FEW_ROWS = 24;
constexpr int64_t DENSE_PART_BYTES = 128 << 10, DENSE_PART_OF_FEW = 8 << 10;
constexpr int64_t ITEM_BYTES = 48 << 10;  // of weights, at least, where there are enough of them
constexpr int64_t ALONE = 4096;           // values of x that one thread has quantised before it has told another one to help
constexpr int ITEMS_PER_THREAD = 4;
constexpr double WORK_OF_THREADS = 1 << 17;  // bytes of weights times rows: below, one thread is the fastest

#ifdef __x86_64__
const IntegerLevel* const LEVELS[] = {&INTEGER_BASELINE, &INTEGER_AVX2, &INTEGER_AVX512, &INTEGER_VNNI};
#else
const IntegerLevel* const LEVELS[] = {&INTEGER_BASELINE};
#endif

// Memory that grows and is kept, aligned to cache lines.
class Buffer {
  public:
    ~Buffer() { std::free(data_); }
    template <class T>
    T* of(int64_t count) {
        const int64_t bytes = (count * int64_t(sizeof(T)) + 63) / 64 * 64;
        if (bytes > held_) {
            std::free(data_);
            held_ = 0;
            data_ = std::aligned_alloc(64, bytes + bytes / 256 * 64);
            if (!data_) throw std::bad_alloc();
            held_ = bytes + bytes / 256 * 64;
        }
        return static_cast<T*>(data_);
    }

  private:
    void* data_ = nullptr;
    int64_t held_ = 0;
};

thread_local Buffer thread_sums;                                    // of one item
thread_local Buffer call_x, call_q, call_scales, call_offsets;      // of one call, by the thread that makes it

int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
int64_t rounded_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// A product cut into items: `blocks_at_once` blocks and one tile of rows. Tiles are cut as evenly as can be.
struct Cut {
    int64_t rows, tiles, blocks, block_bytes, blocks_at_once;
    int threads;

    Cut(int64_t rows, int64_t blocks, int64_t block_bytes, int wanted) : rows(rows), blocks(blocks), block_bytes(block_bytes) {
        tiles = rounded_up(rows, TILE_ROWS);
        threads = double(rows) * blocks * block_bytes < WORK_OF_THREADS ? 1 : wanted;
        const int64_t most = rounded_up(blocks * tiles, int64_t(ITEMS_PER_THREAD) * threads);
        blocks_at_once = smaller(rounded_up(ITEM_BYTES, block_bytes), most > 0 ? most : 1);
    }
    int64_t items() const { return tiles * rounded_up(blocks, blocks_at_once); }
    int64_t first_row(int64_t tile) const { return rows * tile / tiles; }
    int64_t first_block(int64_t item) const { return item % rounded_up(blocks, blocks_at_once) * blocks_at_once; }
    int64_t tile(int64_t item) const { return item / rounded_up(blocks, blocks_at_once); }
};

// Where the weights of the next part lie; block -1: there is no next one.
struct Ahead {
    int64_t block, unit;
};

// Calls part(block, first row, rows, first unit, units, sums, ahead) for parts of a block's units in order, and after the last
// done(block, first row, rows, sums). A unit is what columns are counted in: a pair, a group. A part has at most `part_bytes`
// of weights, and ends where a chain of units ends.
template <class Part, class Done>
void take_items(const Cut& cut, int64_t units, int64_t unit_bytes, int64_t part_bytes, int64_t chain,
                std::atomic<int64_t>& next, const Part& part, const Done& done) {
    const int64_t items = cut.items(), at_once = larger(part_bytes / unit_bytes, 1);
    for (int64_t item = next.fetch_add(1), following; item < items; item = following) {
        const int64_t tile = cut.tile(item), row = cut.first_row(tile), rows = cut.first_row(tile + 1) - row;
        float* sums = thread_sums.of<float>(2 * rows * BLOCK);  // of chains, too
        const int64_t end = smaller(cut.first_block(item) + cut.blocks_at_once, cut.blocks);
        for (int64_t block = cut.first_block(item); block < end; block++) {
            for (int64_t first = 0, last; first < units; first = last) {
                last = smaller(smaller(first + at_once, units), (first / chain + 1) * chain);
                Ahead ahead = {block, last};
                if (last == units) {
                    ahead = {block + 1, 0};
                    if (block + 1 == end) {  // taken one part early, so that what comes next is known
                        following = next.fetch_add(1);
                        ahead.block = following < items ? cut.first_block(following) : -1;
                    }
                }
                part(block, row, rows, first, last - first, sums, ahead);
            }
            done(block, row, rows, sums);
        }
    }
}

}  // namespace

int best_integer_level() {
#ifdef __x86_64__
    __builtin_cpu_init();
    if (!(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))) return 0;
    if (!(__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
          __builtin_cpu_supports("avx512dq"))) {
        return 1;
    }
    return __builtin_cpu_supports("avx512vnni") ? 3 : 2;
#else
    return 0;
#endif
}

bool has_bf16_level() {
#ifdef __x86_64__
    return best_integer_level() >= 2 && __builtin_cpu_supports("avx512bf16");
#else
    return false;
#endif
}

#ifdef __x86_64__
void multiply(const Dense& call) {
    const uint16_t* x = call.x;
    int64_t x_stride = call.x_stride;
    if (call.columns % 2) {  // the last pair is read whole
        uint16_t* copy = call_x.of<uint16_t>(call.rows * (call.columns + 1));
        for (int64_t r = 0; r < call.rows; r++) {
            std::memcpy(copy + r * (call.columns + 1), call.x + r * call.x_stride, 2 * call.columns);
            copy[(r + 1) * (call.columns + 1) - 1] = 0;
        }
        x = copy, x_stride = call.columns + 1;
    }
    const int64_t pair_bytes = 4 * BLOCK, pairs = (call.columns + 1) / 2;
    const Cut cut(call.rows, rounded_up(call.outputs, BLOCK), call.pairs * pair_bytes, call.threads);
    const char* weight = reinterpret_cast<const char*>(call.weight);
    const int64_t chain = call.chain ? call.chain : pairs;
    const int64_t part_bytes = call.rows > DENSE_FEW_ROWS ? DENSE_PART_BYTES : DENSE_PART_OF_FEW;
    std::atomic<int64_t> next{0};
    ramify::parallel(cut.threads, [&] {
        take_items(
            cut, pairs, pair_bytes, part_bytes, chain, next,
            [&](int64_t block, int64_t row, int64_t rows, int64_t first, int64_t count, float* sums, Ahead ahead) {
                const int64_t end = first + count, output = block * BLOCK;
                DenseTile tile = {};
                tile.x = x + row * x_stride + 2 * first, tile.x_stride = x_stride;
                tile.rows = int(rows), tile.pairs = int(count);
                tile.weight = reinterpret_cast<const uint16_t*>(weight + block * cut.block_bytes + first * pair_bytes);
                tile.chains = sums + rows * BLOCK, tile.sums = sums;
                tile.begins = first % chain == 0, tile.ends = end % chain == 0 || end == pairs, tile.first = first < chain;
                if (end == pairs) {
                    tile.bias = call.bias ? call.bias + output : nullptr;
                    tile.out = call.out + row * call.outputs + output, tile.out_stride = call.outputs;
                    tile.outputs = int(smaller(BLOCK, call.outputs - output));
                }
                if (ahead.block >= 0) tile.ahead = weight + ahead.block * cut.block_bytes + ahead.unit * pair_bytes;
                DENSE_AVX512_BF16.multiply(tile);
            },
            [](int64_t, int64_t, int64_t, const float*) {});
    });
}
#else
void multiply(const Dense&) { std::abort(); }
#endif

void pack(const uint16_t* weight, int64_t outputs, int64_t columns, int32_t* to, int threads) {
    constexpr int LINE = 16;  // pairs of a row that lie in one line of the cache
    const int64_t pairs = rounded_up(columns, 2), blocks = rounded_up(outputs, BLOCK);
    std::atomic<int64_t> next{0};
    ramify::parallel(double(outputs) * columns < WORK_OF_THREADS ? 1 : threads, [&] {
        for (int64_t block; (block = next.fetch_add(1)) < blocks;) {
            int32_t* const packed = to + block * pairs * BLOCK;
            for (int64_t first = 0; first < pairs; first += LINE) {
                const int count = int(smaller(LINE, pairs - first));
                for (int output = 0; output < BLOCK; output++) {
                    const int64_t row = block * BLOCK + output, values = smaller(2 * count, columns - 2 * first);
                    int32_t line[LINE] = {};
                    if (row < outputs) std::memcpy(line, weight + row * columns + 2 * first, 2 * values);
                    for (int i = 0; i < count; i++) packed[(first + i) * BLOCK + output] = line[i];
                }
            }
        }
    });
}

void multiply(const QuantizedProduct& call) {
    const Quantized& w = call.weight;
    const IntegerLevel& level = *LEVELS[call.level];
    const int64_t groups = w.groups(), columns = groups * w.group, size = call.bf16 ? 2 : 4;
    int8_t* q = call_q.of<int8_t>(call.rows * columns);
    float* scales = call_scales.of<float>(call.rows * groups);
    int32_t* offsets = call_offsets.of<int32_t>(call.rows * groups);
    const Cut cut(call.rows, w.num_blocks(), w.block_bytes(), call.threads);
    // Rows of x are cut too, in runs of groups, so that one long row does not wait for one thread.
    const int64_t run = smaller(groups, 2048 / w.group), runs = rounded_up(groups, run);
    std::atomic<int64_t> next_run{0}, finished_runs{0}, next{0};
    auto quantize_some = [&] {
        for (int64_t i; (i = next_run.fetch_add(1)) < call.rows * runs;) {
            const int64_t row = i / runs, group = i % runs * run, column = group * w.group;
            level.quantize_x(static_cast<const char*>(call.x) + (row * call.x_stride + column) * size, call.bf16,
                             smaller(run * w.group, w.columns - column), w.group, w.bits, q + row * columns + column,
                             scales + row * groups + group, offsets + row * groups + group);
            finished_runs.fetch_add(1, std::memory_order_release);
        }
    };
    if (call.rows * columns < ALONE) quantize_some();
    ramify::parallel(cut.threads, [&] {
        quantize_some();
        // No barrier: a thread that has not come yet, because another program has its core, is not waited for.
        for (int turn = 0; finished_runs.load(std::memory_order_acquire) < call.rows * runs; turn++) {
            if (turn > 2000) std::this_thread::yield();
        }
        take_items(
            cut, groups, w.group_bytes(), INTEGER_PART_BYTES, groups, next,
            [&](int64_t block, int64_t row, int64_t rows, int64_t first, int64_t count, float* sums, Ahead) {
                const int64_t place = row * groups + first;
                if (first == 0) std::memset(sums, 0, sizeof(float) * rows * BLOCK);
                (w.bits == 8 ? level.multiply8 : level.multiply4)(
                    {q + row * columns + first * w.group, columns, scales + place, offsets + place, groups, int(rows),
                     int(count), w.group, w.blocks + block * cut.block_bytes + first * w.group_bytes(), sums});
            },
            [&](int64_t block, int64_t row, int64_t rows, const float* sums) {
                const int64_t output = block * BLOCK;
                level.finish(sums, int(rows), int(smaller(BLOCK, w.outputs - output)),
                             call.bias ? static_cast<const char*>(call.bias) + output * size : nullptr, call.bf16,
                             static_cast<char*>(call.out) + (row * w.outputs + output) * size, w.outputs);
            });
    });
}

namespace {

// Where q of an output (of its block) and a column (of its group) lies, in bytes from the start of the group.
int64_t place_of(const Quantized& w, int output, int column) {
    const int unit = w.bits == 8 ? column / 4 : column / 8;
    return (int64_t(unit) * BLOCK + output) * 4 + column % 4;
}

float value_of(const void* from, bool bf16, int64_t i) {
    if (!bf16) return static_cast<const float*>(from)[i];
    const uint32_t bits = static_cast<uint32_t>(static_cast<const uint16_t*>(from)[i]) << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

uint16_t high_half(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    return static_cast<uint16_t>(bits >> 16);
}

void quantize_block(const Quantized& to, const void* weight, bool bf16, const IntegerLevel& level, int64_t block) {
    uint8_t* memory = to.blocks + block * to.block_bytes();
    const int zero_point = to.bits == 8 ? 128 : 8;
    for (int64_t group = 0; group < to.groups(); group++, memory += to.group_bytes()) {
        const int64_t columns = smaller(to.group, to.columns - group * to.group);
        std::memset(memory, to.bits == 8 ? 128 : 0x88, to.group_bytes() - 2 * BLOCK);
        for (int output = 0; output < BLOCK; output++) {
            float w[MAX_GROUP] = {}, q[MAX_GROUP], scale = 0;
            const int64_t row = block * BLOCK + output;
            if (row < to.outputs) {
                for (int64_t c = 0; c < columns; c++) w[c] = value_of(weight, bf16, row * to.columns + group * to.group + c);
                scale = level.quantize_w(w, to.group, to.bits, q);
                for (int c = 0; c < columns; c++) {
                    const bool counts = q[c] >= -128 && q[c] <= 127;  // else the scale is NaN, and no code matters
                    const int code = (counts ? static_cast<int>(q[c]) : 0) + zero_point;
                    uint8_t& byte = memory[place_of(to, output, c)];
                    const int half = c % 8 < 4 ? (byte & 0xf0) | code : (byte & 15) | code << 4;
                    byte = static_cast<uint8_t>(to.bits == 8 ? code : half);
                }
            }
            const uint16_t half = high_half(scale);
            std::memcpy(memory + to.group_bytes() - 2 * BLOCK + 2 * output, &half, 2);
        }
    }
}

}  // namespace

void quantize(const Quantized& to, const void* weight, bool bf16, int level, int threads) {
    std::atomic<int64_t> next{0};
    ramify::parallel(threads, [&] {
        for (int64_t block; (block = next.fetch_add(1)) < to.num_blocks();) {
            quantize_block(to, weight, bf16, *LEVELS[level], block);
        }
    });
}

void read_rows(const Quantized& from, const int64_t* ids, int64_t count, void* out, bool bf16) {
    for (int64_t i = 0; i < count; i++) {
        const uint8_t* memory = from.blocks + ids[i] / BLOCK * from.block_bytes();
        const int output = static_cast<int>(ids[i] % BLOCK);
        for (int64_t column = 0; column < from.columns; column++) {
            const uint8_t* group = memory + column / from.group * from.group_bytes();
            const int c = static_cast<int>(column % from.group);
            const int byte = group[place_of(from, output, c)];
            const int q = from.bits == 8 ? byte - 128 : (c % 8 < 4 ? byte & 15 : byte >> 4) - 8;
            const float scale = value_of(group + from.group_bytes() - 2 * BLOCK, true, output), value = scale * q;
            const int64_t place = i * from.columns + column;
            if (bf16) {
                uint32_t bits;
                std::memcpy(&bits, &value, 4);
                const uint16_t half = value == value ? uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16) : uint16_t(0x7fc0);
                static_cast<uint16_t*>(out)[place] = half;
            } else {
                static_cast<float*>(out)[place] = value;
            }
        }
    }
}

}  // namespace ramify_linear
