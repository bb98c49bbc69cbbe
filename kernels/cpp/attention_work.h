// How a call of attention is cut into items that threads take one by one. Decides, and computes nothing.
//
//   span    -> blocks of up to 64 query rows: a row is a position and a query head; few positions come with all heads
//   block   -> tiles of keys, cut at absolute multiples of 256 positions
//   piece   =  tiles that some spans have in the same slots: read once, for the rows of all of them
//   item    =  a block and all of its tiles that are in no piece, or some of them; or some heads and spans of a piece
//
// A span's last block takes part in pieces (the others have 64 rows, which repay the reading of a key by themselves), unless
// its window has left the first position. What spans share is a tree; in a piece's last tile they may share the beginning only:
//
//   tile        0        1        2        3
//   a   |========|========|===-----|----                == piece of a, b, c, d
//   b   |========|========|===##---|----                ## shared by a and b within the last tile of the piece:
//   c   |========|========|===-----|                       a segment of it (attention_level.h)
//   d   |========|========|===-----|--------            -- read by one
#pragma once

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#include "attention.h"
#include "attention_level.h"

namespace attention {

constexpr int BLOCK_ROWS = 64;
constexpr int PIECE_ROWS = 256;        // rows of a head in one item: what they share stays in the second cache level meanwhile
constexpr int SHARES_PER_THREAD = 8;   // an item is at most an eighth of a thread's work, or one tile
constexpr int SHORT = 2;               // tiles of an item whose thread takes the next one before it runs it
constexpr int COST_OF_HEAD = 8;        // to bring a head's key and value into order costs about as much as 8 rows' products
constexpr int COST_OF_THREADS = 8192;  // keys times rows, about 10 us: below, waking another thread costs more than it brings
// What a piece costs beside its products, in bytes that memory gives in that time: once, and for each number of the results
// that its rows bring, because these are stored, and merged with those of other tiles later. For callers that have not measured
// them (kernels/attention/costs.py).
constexpr int64_t COST_OF_PIECE = 8 << 10, COST_OF_JOINING = 16;

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

inline int kv_size(int32_t dtype) { return dtype == RAMIFY_FP32 ? 4 : dtype == RAMIFY_BF16 ? 2 : 1; }

// Elements of a pool from one head to the next.
inline int kv_row(const RamifyAttention& call) {
    return call.head_dim + (call.kv_dtype == RAMIFY_INT8 ? RAMIFY_SCALE_BYTES : 0);
}

inline int64_t padded(int64_t count) { return (count + 15) / 16 * 16; }

// Some positions of a span, for KV heads [head, head + heads). Its rows see keys from `lowest` to `highest` of the sequence, in
// tiles first_tile ... + tiles - 1.
struct Block {
    const int32_t* pages;
    int64_t token;
    int position, length, lowest, highest, first_tile, tiles, head, heads;
    int64_t parts;  // where the results of its tiles lie; -1: one thread computes all of them, and merges as it goes
    int counter;    // of results that are still to come: tiles times heads
    int own;        // tiles before this one are in pieces
    int folded;     // so many of its first tiles have one result, already merged
};

// A span's last positions, as blocks of `heads` heads each from `block` on, `rows` of each head. The first `shared` positions
// of its sequence lie in the same slots as those of the member before.
struct Member {
    int block, heads, rows, shared;
};

// Tiles that members [first, last) read together: wholly shared, or a single one, whose beginning they share.
struct Piece {
    int first, last, tile, tiles;
    bool whole;
};

// Tiles [tile, tile + tiles) of a block, or of a piece for some members and heads.
struct Item {
    int block, tile, tiles;  // block: -1 for a piece
    int piece, first, last, head, heads;
};

// A call cut into items. Kept per calling thread, so that a step allocates nothing.
class Work {
  public:
    void cut(const RamifyAttention& call) {
        group = call.num_heads / call.num_kv_heads;
        head_dim = call.head_dim;
        kv_heads = call.num_kv_heads;
        key_bytes_ = 2 * int64_t(kv_heads) * kv_row(call) * kv_size(call.kv_dtype);
        cost_of_piece_ = call.cost_of_piece ? call.cost_of_piece : COST_OF_PIECE;
        cost_of_joining_ = call.cost_of_joining ? call.cost_of_joining : COST_OF_JOINING;
        add_blocks(call);
        members.clear();
        pieces.clear();
        if (call.order) {
            add_members(call);
            const int count = static_cast<int>(members.size());
            for (int i = 0, end; i < count; i = end) {
                for (end = i + 1; end < count && members[end].shared >= STRIP;) end++;
                share(i, end, 0);
            }
        }
        double total = 0;
        for (const Block& block : blocks) total += cost(block);
        for (const Piece& piece : pieces) total += cost(piece, piece.first, piece.last, kv_heads);
        threads = total < COST_OF_THREADS ? 1 : call.threads;
        share_ = total / (SHARES_PER_THREAD * threads);
        most_rows = group > BLOCK_ROWS ? group : BLOCK_ROWS;
        items.clear();
        parts_ = 0, counters_ = 0;
        for (size_t i = 0; i < blocks.size(); i++) add_items(static_cast<int>(i));
        for (size_t i = 0; i < pieces.size(); i++) add_items_of_piece(static_cast<int>(i));
        for (Block& block : blocks) {
            if (block.parts >= 0) place_parts(block);
        }
        part_memory_ = parts_ ? part_buffer_.floats(parts_) : nullptr;
        if (counters_ > num_counters_) to_come.reset(new std::atomic<int>[num_counters_ = 2 * counters_]);
        for (const Block& block : blocks) {
            if (block.parts >= 0) to_come[block.counter].store(block.tiles * block.heads, std::memory_order_relaxed);
        }
    }

    bool is_short(int item) const { return items[item].block >= 0 && items[item].tiles <= SHORT; }
    bool alike(int a, int b) const {  // whether both are blocks of the same heads
        if (items[a].block < 0 || items[b].block < 0) return false;
        const Block &x = blocks[items[a].block], &y = blocks[items[b].block];
        return x.head == y.head && x.heads == y.heads;
    }
    int rows_of_head(const Block& block) const { return block.length * group; }
    int rows(const Block& block) const { return block.heads * block.length * group; }
    int results(const Block& block) const { return block.tiles - block.folded + (block.folded > 0); }
    // The result of one tile; of the folded ones together.
    Part part(const Block& block, int tile) const {
        const int place = tile < block.folded ? 0 : tile - block.folded + (block.folded > 0);
        return result(block, place);
    }
    Part result(const Block& block, int place) const {
        return lay_out(part_memory_ + block.parts + part_size(block) * place, rows(block));
    }
    static Part lay_out(float* memory, int rows) { return {memory, memory + padded(rows), memory + 2 * padded(rows)}; }
    // Keys of a tile that a member has in the same slots as the member before.
    int shared_keys(int member, int tile) const {
        const int keys = members[member].shared - tile * TILE;
        return keys < 0 ? 0 : keys > TILE ? TILE : keys;
    }
    // The member after the last one, from `first` on, whose rows one block holds, of at most `rows`.
    int chunk_end(int first, int last, int rows) const {
        int end = first + 1;
        for (int sum = members[first].rows; end < last && (sum += members[end].rows) <= rows;) end++;
        return end;
    }
    int rows_of(int first, int last) const {
        int sum = 0;
        for (int m = first; m < last; m++) sum += members[m].rows;
        return sum;
    }

    std::vector<Block> blocks;
    std::vector<Member> members;
    std::vector<Piece> pieces;
    std::vector<Item> items;
    std::unique_ptr<std::atomic<int>[]> to_come;
    int group = 1, head_dim = 0, kv_heads = 1, threads = 1;
    int most_rows = BLOCK_ROWS;  // of any item, over its heads

  private:
    void add_blocks(const RamifyAttention& call) {
        blocks.clear();
        last_blocks_.clear();
        const int most = BLOCK_ROWS / group > 0 ? BLOCK_ROWS / group : 1;
        for (int span = 0; span < call.spans; span++) {
            int last = -1;
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
                b.parts = -1, b.counter = 0, b.own = 0, b.folded = 0;
                const int rows = rows_of_head(b), heads = rows < BLOCK_ROWS ? BLOCK_ROWS / rows : 1;
                last = static_cast<int>(blocks.size());
                for (b.head = 0; b.head < kv_heads; b.head += b.heads) {
                    b.heads = heads < kv_heads - b.head ? heads : kv_heads - b.head;
                    blocks.push_back(b);
                }
            }
            last_blocks_.push_back(last);
        }
    }

    void add_members(const RamifyAttention& call) {
        int shared = 0;
        for (int i = 0; i < call.spans; i++) {
            const int block = last_blocks_[call.order[i]];
            if (i == 0 || call.shared[i] < shared) shared = i ? call.shared[i] : 0;
            if (block < 0 || blocks[block].lowest > 0) continue;
            const Block& b = blocks[block];
            if (!members.empty()) {  // a span sees nothing behind its last token, whatever the table says
                const int before = blocks[members.back().block].highest + 1;
                if (shared > before) shared = before;
                if (shared > b.highest + 1) shared = b.highest + 1;
            }
            members.push_back({block, b.heads, rows_of_head(b), members.empty() ? 0 : shared});
            shared = INT32_MAX;
        }
    }

    // Neighbours among members [first, last) share some of `tile`; tiles before it are in pieces. Finds the pieces that begin
    // here and behind, and says which tiles each member reads alone.
    void share(int first, int last, int tile) {
        if (last - first < 2) return alone(first, last, tile);
        int least = INT32_MAX;
        for (int m = first + 1; m < last; m++) least = members[m].shared < least ? members[m].shared : least;
        const int whole = least / TILE - tile, keys = least % TILE / STRIP * STRIP;
        if (whole > 0) {
            if (!worth(first, last, TILE)) return alone(first, last, tile);
            pieces.push_back({first, last, tile, whole, true});
            tile += whole;
        }
        const bool begins = keys > 0 && worth(first, last, keys);
        if (begins) pieces.push_back({first, last, tile++, 1, false});
        const int some = tile * TILE + STRIP, needed = begins || least < some ? some : least + 1;
        for (int i = first, end; i < last; i = end) {
            for (end = i + 1; end < last && members[end].shared >= needed;) end++;
            share(i, end, tile);
        }
    }

    void alone(int first, int last, int tile) {
        for (int m = first; m < last; m++) {
            for (int head = 0, b = members[m].block; head < kv_heads; head += blocks[b++].heads) blocks[b].own = tile;
        }
    }

    // Whether members [first, last) gain by reading `keys` together.
    bool worth(int first, int last, int keys) const {
        const int64_t joining = cost_of_joining_ * rows_of(first, last) * kv_heads * head_dim;
        return (last - first - 1) * keys * key_bytes_ > cost_of_piece_ + joining;
    }

    void add_items(int number) {
        Block& block = blocks[number];
        const int tiles = block.tiles - block.own;
        int at_once = tiles;
        if (block.own > 0) block.parts = 0;
        if (threads > 1 && tiles > 1 && cost(block) > share_) {
            at_once = static_cast<int>(share_ / cost(block) * tiles);
            if (at_once < 1) at_once = 1;
            block.parts = 0;
        }
        for (int tile = block.own; tile < block.tiles; tile += at_once) {
            items.push_back({number, tile, at_once < block.tiles - tile ? at_once : block.tiles - tile, -1, 0, 0, 0, 0});
        }
    }

    void add_items_of_piece(int number) {
        const Piece& piece = pieces[number];
        const int rows = rows_of(piece.first, piece.last);
        int heads = rows < BLOCK_ROWS ? BLOCK_ROWS / rows : 1;
        if (heads > kv_heads) heads = kv_heads;
        const double largest = cost(piece, piece.first, chunk_end(piece.first, piece.last, PIECE_ROWS), heads);
        int at_once = piece.tiles;
        if (threads > 1 && largest > share_) at_once = static_cast<int>(share_ / largest * piece.tiles);
        if (at_once < 1) at_once = 1;
        for (int first = piece.first, last; first < piece.last; first = last) {
            last = chunk_end(first, piece.last, PIECE_ROWS);
            const int item_rows = heads * rows_of(first, last);
            if (item_rows > most_rows) most_rows = item_rows;
            for (int done = 0; done < piece.tiles; done += at_once) {
                const int tiles = at_once < piece.tiles - done ? at_once : piece.tiles - done;
                for (int head = 0; head < kv_heads; head += heads) {
                    const int here = heads < kv_heads - head ? heads : kv_heads - head;
                    items.push_back({-1, piece.tile + done, tiles, number, first, last, head, here});
                }
            }
        }
        if (piece.tile > 0) return;
        for (int m = piece.first; m < piece.last; m++) {
            for (int head = 0, b = members[m].block; head < kv_heads; head += blocks[b++].heads) blocks[b].folded = at_once;
        }
    }

    void place_parts(Block& block) {
        block.parts = parts_, block.counter = counters_++;
        parts_ += part_size(block) * results(block);
    }

    int64_t part_size(const Block& block) const { return 2 * padded(rows(block)) + int64_t(rows(block)) * head_dim; }
    double cost(const Block& block) const {
        const int low = block.own * TILE > block.lowest ? block.own * TILE : block.lowest;
        if (low > block.highest) return 0;
        return static_cast<double>(block.highest - low + 1) * (rows(block) + COST_OF_HEAD * block.heads);
    }
    double cost(const Piece& piece, int first, int last, int heads) const {
        const int rows = rows_of(first, last), chunks = (rows + BLOCK_ROWS - 1) / BLOCK_ROWS;
        return static_cast<double>(piece.tiles) * TILE * heads * (rows + COST_OF_HEAD * chunks);
    }

    std::vector<int> last_blocks_;  // of each span; -1 for one without queries
    double share_ = 0;
    int64_t key_bytes_ = 0, cost_of_piece_ = 0, cost_of_joining_ = 0, parts_ = 0;
    int counters_ = 0, num_counters_ = 0;
    Buffer part_buffer_;
    float* part_memory_ = nullptr;
};

}  // namespace attention
