// Runs attention over pages on random shapes, for `make sanitize`: every level, every dtype (int8 pools too), buffers of exactly the size that
// is needed, NaN in every slot that no span sees; spans share the beginnings of their sequences. Compares with a plain softmax in
// double, and what is told of sharing with what is not, bit for bit; ends with status 1 at a difference.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "../../../kernels/cpp/attention.h"

namespace {

std::mt19937 random_bits(0);

int draw(int low, int high) { return std::uniform_int_distribution<int>(low, high)(random_bits); }

template <class T>
T choose(std::initializer_list<T> from) {
    return from.begin()[draw(0, static_cast<int>(from.size()) - 1)];
}

// Numbers in fp32 or bf16, each the size of what is stored.
struct Numbers {
    std::vector<unsigned char> bytes;
    int32_t dtype;

    Numbers(int64_t count, int32_t dtype) : bytes(count * (dtype == RAMIFY_BF16 ? 2 : 4)), dtype(dtype) {}
    void set(int64_t i, float x) {
        uint32_t bits;
        std::memcpy(&bits, &x, 4);
        uint16_t half = static_cast<uint16_t>(bits >> 16);
        dtype == RAMIFY_BF16 ? std::memcpy(&bytes[2 * i], &half, 2) : std::memcpy(&bytes[4 * i], &x, 4);
    }
    double get(int64_t i) const {
        float x;
        if (dtype == RAMIFY_BF16) {
            uint16_t half;
            std::memcpy(&half, &bytes[2 * i], 2);
            uint32_t bits = static_cast<uint32_t>(half) << 16;
            std::memcpy(&x, &bits, 4);
        } else {
            std::memcpy(&x, &bytes[4 * i], 4);
        }
        return x;
    }
    void fill() {
        std::normal_distribution<float> normal;
        for (int64_t i = 0; i < count(); i++) set(i, normal(random_bits));
    }
    int64_t count() const { return static_cast<int64_t>(bytes.size()) / (dtype == RAMIFY_BF16 ? 2 : 4); }
};

// K or V of a layer, in any dtype: vectors of head_dim numbers, in int8 as codes with their scale behind them.
struct Pool {
    Numbers numbers;
    std::vector<unsigned char> rows;
    int head_dim;

    Pool(int64_t count, int32_t dtype, int head_dim)
        : numbers(dtype == RAMIFY_INT8 ? 0 : count, dtype),
          rows(dtype == RAMIFY_INT8 ? count / head_dim * (head_dim + RAMIFY_SCALE_BYTES) : 0),
          head_dim(head_dim) {}
    unsigned char* row(int64_t i) { return &rows[i / head_dim * (head_dim + RAMIFY_SCALE_BYTES)]; }
    void set_scale(int64_t i, float scale) {
        Numbers one(1, RAMIFY_BF16);
        one.set(0, scale);
        std::memcpy(row(i) + head_dim, one.bytes.data(), 2);
    }
    void fill() {
        numbers.fill();
        for (unsigned char& byte : rows) byte = static_cast<unsigned char>(draw(-127, 127));
        const int64_t count = static_cast<int64_t>(rows.size()) / (head_dim + RAMIFY_SCALE_BYTES);
        for (int64_t i = 0; i < count; i++) set_scale(i * head_dim, static_cast<float>(draw(1, 40)) / 1024);
    }
    void poison(int64_t i) { rows.empty() ? numbers.set(i, NAN) : set_scale(i, NAN); }
    double get(int64_t i) {
        if (rows.empty()) return numbers.get(i);
        Numbers scale(1, RAMIFY_BF16);
        std::memcpy(scale.bytes.data(), row(i) + head_dim, 2);
        return static_cast<signed char>(row(i)[i % head_dim]) * scale.get(0);
    }
    const void* data() const { return rows.empty() ? numbers.bytes.data() : rows.data(); }
};

struct Worst {
    double difference = 0, allowed = 0;
};

bool one_call(int number) {
    const int group = choose({1, 2, 3, 7, 8, 9, 70}), kv_heads = draw(1, 3), head_dim = 16 * draw(1, draw(0, 3) ? 8 : 16);
    const int page_size = choose({1, 3, 16}), spans = draw(1, 9), heads = group * kv_heads;
    const int32_t q_dtype = draw(0, 1), kv_dtype = draw(0, 2) ? q_dtype : draw(0, 2);
    std::vector<int32_t> query_start, query_length, start, row;
    int tokens = 0, longest = 0, total_pages = 0;
    for (int i = 0; i < spans; i++) {
        query_start.push_back(tokens);
        query_length.push_back(choose({1, 1, 2, 9, 33, 70}));
        start.push_back(choose({0, 1, 30, 255, 256, 257, 500, 900}));
        row.push_back(i);
        tokens += query_length[i];
        int pages = (start[i] + query_length[i] + page_size - 1) / page_size;
        longest = std::max(longest, pages);
        total_pages += pages;
    }
    std::shuffle(row.begin(), row.end(), random_bits);
    std::vector<int32_t> order(total_pages + 2), table(spans * longest, std::numeric_limits<int32_t>::max());
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), random_bits);
    const int64_t slots = int64_t(order.size()) * page_size, size = int64_t(kv_heads) * head_dim;
    Numbers q(int64_t(tokens) * heads * head_dim, q_dtype), out(q.count(), q_dtype);
    Pool k(slots * size, kv_dtype, head_dim), v(slots * size, kv_dtype, head_dim);
    q.fill(), k.fill(), v.fill();

    RamifyAttention call = {};
    call.window = draw(0, 2) ? 0 : choose({1, 5, 100, 300});
    call.causal = draw(0, 3) > 0;
    call.soft_cap = draw(0, 3) ? 0 : 2.5f;
    std::vector<bool> seen(slots, false);
    int used = 0;
    auto slot_of = [&](int span, int position) {
        return int64_t(table[row[span] * longest + position / page_size]) * page_size + position % page_size;
    };
    auto end_of = [&](int span) { return start[span] + query_length[span]; };
    for (int i = 0; i < spans; i++) {
        const int like = i ? draw(0, i - 1) : 0, most = std::min(end_of(like), end_of(i)) / page_size;
        const int common = i && draw(0, 3) ? (draw(0, 2) ? most : draw(0, most)) : 0;
        for (int page = 0; page * page_size < end_of(i); page++) {
            table[row[i] * longest + page] = page < common ? table[row[like] * longest + page] : order[used++];
        }
        int first = call.window ? std::max(0, start[i] - call.window + 1) : 0;
        for (int p = first; p < start[i] + query_length[i]; p++) seen[slot_of(i, p)] = true;
    }
    for (int64_t slot = 0; slot < slots; slot++) {
        for (int64_t i = 0; !seen[slot] && i < size; i++) k.poison(slot * size + i), v.poison(slot * size + i);
    }

    call.q = q.bytes.data(), call.q_stride = int64_t(heads) * head_dim, call.out = out.bytes.data();
    call.k_pool = k.data(), call.v_pool = v.data(), call.slots = slots;
    call.q_dtype = q_dtype, call.kv_dtype = kv_dtype;
    call.num_heads = heads, call.num_kv_heads = kv_heads, call.head_dim = head_dim;
    call.page_table = table.data(), call.page_table_stride = longest, call.page_size = page_size;
    call.query_start = query_start.data(), call.query_length = query_length.data(), call.start = start.data(), call.row = row.data();
    call.spans = spans, call.scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
    call.level = draw(0, ramify_best_level()), call.threads = draw(1, 3);
    std::vector<int32_t> beside(spans), shared(spans, 0);
    std::iota(beside.begin(), beside.end(), 0);
    auto pages_of = [&](int span) {
        const auto first = table.begin() + row[span] * longest;
        return std::vector<int32_t>(first, first + (end_of(span) + page_size - 1) / page_size);
    };
    std::sort(beside.begin(), beside.end(), [&](int a, int b) { return pages_of(a) < pages_of(b); });
    for (int i = 1; i < spans; i++) {
        const std::vector<int32_t> a = pages_of(beside[i - 1]), b = pages_of(beside[i]);
        while (shared[i] < static_cast<int>(std::min(a.size(), b.size())) && a[shared[i]] == b[shared[i]]) shared[i]++;
    }
    for (int32_t& count : shared) count *= page_size;
    if (ramify_attention(&call) != 0) {
        std::printf("call %d: a page was not found\n", number);
        return false;
    }
    const Numbers alone = out;
    std::fill(out.bytes.begin(), out.bytes.end(), 0xff);
    call.order = beside.data(), call.shared = shared.data(), call.threads = draw(1, 3);
    if (ramify_attention(&call) != 0 || out.bytes != alone.bytes) {
        std::printf("call %d: level %d: other bits than without sharing\n", number, call.level);
        return false;
    }

    Worst worst;
    for (int i = 0; i < spans; i++) {
        for (int t = 0; t < query_length[i]; t += std::max(1, query_length[i] / 3)) {
            const int head = draw(0, heads - 1), position = start[i] + t;
            const int first = call.window ? std::max(0, position - call.window + 1) : 0;
            const int last = call.causal ? position : start[i] + query_length[i] - 1;
            const int64_t place = (int64_t(query_start[i] + t) * heads + head) * head_dim;
            std::vector<double> scores;
            for (int p = first; p <= last; p++) {
                double score = 0;
                for (int d = 0; d < head_dim; d++) score += q.get(place + d) * k.get(slot_of(i, p) * size + head / group * head_dim + d);
                score *= call.scale;
                scores.push_back(call.soft_cap > 0 ? call.soft_cap * std::tanh(score / call.soft_cap) : score);
            }
            const double top = *std::max_element(scores.begin(), scores.end());
            double total = 0;
            for (double& score : scores) total += score = std::exp(score - top);
            for (int d = 0; d < head_dim; d++) {
                double expected = 0;
                for (int p = first; p <= last; p++) expected += scores[p - first] / total * v.get(slot_of(i, p) * size + head / group * head_dim + d);
                const double difference = std::fabs(out.get(place + d) - expected);
                const double rounding = kv_dtype == RAMIFY_INT8 ? 2e-3 : 5e-5;  // of queries and weights to whole numbers
                const double allowed = q_dtype == RAMIFY_BF16 ? rounding + (2 * std::fabs(expected) + 5) / 512 : rounding;
                if (!(difference <= allowed)) worst = {difference, allowed};
            }
        }
    }
    if (worst.difference != 0) {
        std::printf("call %d: level %d, %d x %d heads of %d: off by %g, allowed is %g\n", number, call.level, kv_heads, group, head_dim,
                    worst.difference, worst.allowed);
    }
    return worst.difference == 0;
}

}  // namespace

int main(int count, char** arguments) {
    const int calls = count > 1 ? std::atoi(arguments[1]) : 120;
    int wrong = 0;
    for (int i = 0; i < calls; i++) wrong += !one_call(i);
    std::printf("attention: %d calls, %d wrong, levels 0 to %d\n", calls, wrong, ramify_best_level());
    return wrong > 0;
}
