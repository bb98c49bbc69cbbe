// torch.ops.ramify.sample, log_totals, ranked: columns of a step become what sampling.h takes.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <optional>
#include <vector>

#include "sampling.h"

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

int num_threads() {
    uint32_t threads = 1;
    TORCH_ERROR_CODE_CHECK(torch_get_num_threads(&threads));
    return static_cast<int>(threads);
}

void check(const Tensor& tensor, const char* name, ScalarType type, std::initializer_list<int64_t> shape) {
    bool good = tensor.scalar_type() == type && tensor.is_contiguous() && tensor.dim() == static_cast<int64_t>(shape.size());
    int64_t i = 0;
    for (int64_t size : shape) {
        good = good && (size < 0 || tensor.size(i) == size);  // below 0: any
        i++;
    }
    STD_TORCH_CHECK(good, name, " has another shape or dtype than it must have, or is not contiguous");
}

int32_t check_logits(const Tensor& logits, int64_t level) {
    const ScalarType type = logits.scalar_type();
    STD_TORCH_CHECK(type == ScalarType::Float || type == ScalarType::BFloat16, "logits must be float32 or bfloat16");
    STD_TORCH_CHECK(logits.dim() == 2 && logits.size(1) > 0 && logits.size(1) < (int64_t(1) << 31) &&
                        (logits.size(1) == 1 || logits.stride(1) == 1),
                    "logits must be [rows, vocab] with contiguous rows");
    STD_TORCH_CHECK(level >= 0 && level <= ramify_best_level(), "this CPU has no level ", level);
    return type == ScalarType::Float ? RAMIFY_FP32 : RAMIFY_BF16;
}

// Entries [*end of the draw before, end) of a flat list of ids.
int64_t checked_piece(const Tensor& ids, int64_t first, int64_t end, int64_t vocab) {
    STD_TORCH_CHECK(first <= end && end <= ids.size(0), "the ends of bias and ban must not descend or pass their lists");
    const int64_t* data = static_cast<const int64_t*>(ids.const_data_ptr());
    for (int64_t i = first; i < end; i++) {
        STD_TORCH_CHECK(data[i] >= 0 && data[i] < vocab, "token ", data[i], " is not in the vocabulary");
    }
    return end - first;
}

const int64_t* checked_rows(const Tensor& rows, const Tensor& logits) {
    check(rows, "rows", ScalarType::Long, {-1});
    const int64_t* data = static_cast<const int64_t*>(rows.const_data_ptr());
    for (int64_t i = 0; i < rows.size(0); i++) {
        STD_TORCH_CHECK(data[i] >= 0 && data[i] < logits.size(0), "there is no logits row ", data[i]);
    }
    return data;
}

// integers: int64 [6, n]: logits row, top_k, end of biases, end of bans, row of counts or -1, row of masks or -1.
// numbers: fp32 [7, n]: 1 / temperature or 0, top_p, min_p, uniform, presence, frequency, repetition.
void sample(const Tensor& logits, const Tensor& integers, const Tensor& numbers, const Tensor& bias_ids,
            const Tensor& bias_values, const Tensor& banned_ids, const std::optional<Tensor>& counts, const std::optional<Tensor>& in_prompt,
            const std::optional<Tensor>& masks, int64_t level, Tensor tokens, Tensor bad) {
    const int32_t dtype = check_logits(logits, level);
    const int64_t n = tokens.size(0), vocab = logits.size(1);
    check(tokens, "tokens", ScalarType::Long, {n});
    check(bad, "bad", ScalarType::Bool, {n});
    check(integers, "integers", ScalarType::Long, {6, n});
    check(numbers, "numbers", ScalarType::Float, {7, n});
    check(bias_ids, "bias_ids", ScalarType::Long, {-1});
    check(bias_values, "bias_values", ScalarType::Float, {bias_ids.size(0)});
    check(banned_ids, "banned_ids", ScalarType::Long, {-1});
    if (counts) {
        check(*counts, "counts", ScalarType::Int, {counts->size(0), vocab});
        STD_TORCH_CHECK(in_prompt.has_value(), "counts come with in_prompt");
        check(*in_prompt, "in_prompt", ScalarType::Bool, {counts->size(0), vocab});
    }
    if (masks) check(*masks, "masks", ScalarType::Int, {masks->size(0), masks->size(1)});
    static thread_local std::vector<RamifyDraw> draws;
    draws.resize(n);
    const int64_t* column = static_cast<const int64_t*>(integers.const_data_ptr());
    const float* number = static_cast<const float*>(numbers.const_data_ptr());
    int64_t bias_end = 0, banned_end = 0;
    for (int64_t i = 0; i < n; i++) {
        const int64_t which = column[i], place = column[4 * n + i], mask = column[5 * n + i];
        STD_TORCH_CHECK(which >= 0 && which < logits.size(0), "there is no logits row ", which);
        STD_TORCH_CHECK(place < (counts ? counts->size(0) : 0), "there are no counts ", place);
        STD_TORCH_CHECK(mask < (masks ? masks->size(0) : 0), "there is no mask ", mask);
        RamifyDraw& draw = draws[i];
        draw = {};
        const int64_t offset = which * logits.stride(0) * (dtype == RAMIFY_BF16 ? 2 : 4);
        draw.logits = static_cast<const char*>(logits.const_data_ptr()) + offset;
        draw.top_k = column[n + i];
        draw.bias_ids = static_cast<const int64_t*>(bias_ids.const_data_ptr()) + bias_end;
        draw.bias_values = static_cast<const float*>(bias_values.const_data_ptr()) + bias_end;
        draw.biases = checked_piece(bias_ids, bias_end, column[2 * n + i], vocab);
        draw.banned_ids = static_cast<const int64_t*>(banned_ids.const_data_ptr()) + banned_end;
        draw.banned = checked_piece(banned_ids, banned_end, column[3 * n + i], vocab);
        bias_end += draw.biases, banned_end += draw.banned;
        if (place >= 0) {
            draw.counts = static_cast<const int32_t*>(counts->const_data_ptr()) + place * vocab;
            draw.in_prompt = static_cast<const uint8_t*>(in_prompt->const_data_ptr()) + place * vocab;
        }
        if (mask >= 0) {
            draw.words = masks->size(1);
            draw.mask = static_cast<const int32_t*>(masks->const_data_ptr()) + mask * draw.words;
        }
        draw.inverse_temperature = number[i];
        draw.top_p = number[n + i], draw.min_p = number[2 * n + i], draw.uniform = number[3 * n + i];
        draw.presence = number[4 * n + i], draw.frequency = number[5 * n + i], draw.repetition = number[6 * n + i];
    }
    ramify_sample(draws.data(), n, vocab, dtype, level, num_threads(), static_cast<int64_t*>(tokens.mutable_data_ptr()),
                  static_cast<uint8_t*>(bad.mutable_data_ptr()));
}

void log_totals(const Tensor& logits, const Tensor& rows, int64_t level, Tensor largest, Tensor totals) {
    const int32_t dtype = check_logits(logits, level);
    const int64_t n = rows.size(0);
    check(largest, "largest", ScalarType::Float, {n});
    check(totals, "totals", ScalarType::Double, {n});
    ramify_log_totals(logits.const_data_ptr(), logits.stride(0), checked_rows(rows, logits), n, logits.size(1), dtype, level,
                      num_threads(), static_cast<float*>(largest.mutable_data_ptr()),
                      static_cast<double*>(totals.mutable_data_ptr()));
}

void ranked(const Tensor& logits, const Tensor& rows, int64_t level, Tensor values, Tensor ids) {
    const int32_t dtype = check_logits(logits, level);
    const int64_t n = rows.size(0), count = values.size(1);
    STD_TORCH_CHECK(count <= logits.size(1), "there are fewer tokens than ", count);
    check(values, "values", ScalarType::Float, {n, count});
    check(ids, "ids", ScalarType::Long, {n, count});
    ramify_ranked(logits.const_data_ptr(), logits.stride(0), checked_rows(rows, logits), n, logits.size(1), count, dtype, level,
                  num_threads(), static_cast<float*>(values.mutable_data_ptr()), static_cast<int64_t*>(ids.mutable_data_ptr()));
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(ramify, m) {
    m.def(
        "sample(Tensor logits, Tensor integers, Tensor numbers, Tensor bias_ids, Tensor bias_values, Tensor banned_ids, "
        "Tensor? counts, Tensor? in_prompt, Tensor? masks, int level, Tensor(a!) tokens, Tensor(b!) bad) -> ()");
    m.def("log_totals(Tensor logits, Tensor rows, int level, Tensor(a!) largest, Tensor(b!) totals) -> ()");
    m.def("ranked(Tensor logits, Tensor rows, int level, Tensor(a!) values, Tensor(b!) ids) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(ramify, CPU, m) {
    m.impl("sample", TORCH_BOX(&sample));
    m.impl("log_totals", TORCH_BOX(&log_totals));
    m.impl("ranked", TORCH_BOX(&ranked));
}
