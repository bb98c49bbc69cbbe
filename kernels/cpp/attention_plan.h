// What kernels/attention/native.py calls a plan, as tensors: checked and read into a call of attention.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <vector>

#include "attention.h"

namespace ramify {

// Reads what spans share into the call. sharing: int32 [2, spans]: order, shared; or [2, 0].
inline void set_sharing(const torch::stable::Tensor& sharing, RamifyAttention& call) {
    STD_TORCH_CHECK(sharing.dim() == 2 && sharing.size(0) == 2 &&
                        sharing.scalar_type() == torch::headeronly::ScalarType::Int && sharing.is_contiguous() &&
                        (sharing.size(1) == 0 || sharing.size(1) == call.spans),
                    "sharing must be contiguous int32 [2, spans] or [2, 0]");
    if (sharing.size(1) == 0) return;
    call.order = static_cast<const int32_t*>(sharing.const_data_ptr());
    call.shared = call.order + call.spans;
    thread_local std::vector<char> seen;  // kept, so that a step allocates nothing
    seen.assign(call.spans, 0);
    for (int32_t i = 0; i < call.spans; i++) {
        const int32_t span = call.order[i];
        const bool fits = span >= 0 && span < call.spans && !seen[span] && call.shared[i] >= 0;
        STD_TORCH_CHECK(fits, "sharing must hold each span once, and counts of positions, at entry ", i);
        seen[span] = 1;
    }
}

// Spans of `tokens` queries. page_table: int32 [rows, max_pages]. spans: int32 [4, spans]: query_start, query_length, start, row.
inline void set_plan(const torch::stable::Tensor& page_table, int64_t page_size, const torch::stable::Tensor& spans,
                     const torch::stable::Tensor& sharing, int64_t tokens, RamifyAttention& call) {
    using torch::headeronly::ScalarType;
    STD_TORCH_CHECK(page_table.dim() == 2 && page_table.scalar_type() == ScalarType::Int && page_table.is_contiguous(),
                    "page_table must be contiguous int32 [rows, max_pages]");
    STD_TORCH_CHECK(spans.dim() == 2 && spans.size(0) == 4 && spans.scalar_type() == ScalarType::Int && spans.is_contiguous(),
                    "spans must be contiguous int32 [4, spans]");
    STD_TORCH_CHECK(page_size > 0, "page_size must be positive");
    call.page_table = static_cast<const int32_t*>(page_table.const_data_ptr());
    call.page_table_stride = page_table.size(1);
    call.page_size = static_cast<int32_t>(page_size);
    call.spans = static_cast<int32_t>(spans.size(1));
    const int32_t* columns = static_cast<const int32_t*>(spans.const_data_ptr());
    call.query_start = columns;
    call.query_length = columns + call.spans;
    call.start = columns + 2 * int64_t(call.spans);
    call.row = columns + 3 * int64_t(call.spans);
    for (int32_t i = 0; i < call.spans; i++) {
        STD_TORCH_CHECK(call.query_start[i] >= 0 && call.query_length[i] >= 0 && call.start[i] >= 0 && call.row[i] >= 0 &&
                            int64_t(call.query_start[i]) + call.query_length[i] <= tokens && call.row[i] < page_table.size(0) &&
                            (int64_t(call.start[i]) + call.query_length[i] + page_size - 1) / page_size <= page_table.size(1),
                        "span ", i, " does not lie within q and the page table");
    }
    set_sharing(sharing, call);
}

}  // namespace ramify
