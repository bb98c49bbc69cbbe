// torch.ops.ramify.linear_*: the operations of linear.cpp, through torch's stable ABI.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <optional>

#include "linear.h"

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
namespace linear = ramify_linear;

int threads_of_torch() {
    uint32_t threads = 1;
    TORCH_ERROR_CODE_CHECK(torch_get_num_threads(&threads));
    return static_cast<int>(threads);
}

bool is_bf16(const Tensor& tensor, const char* name) {
    const ScalarType type = tensor.scalar_type();
    STD_TORCH_CHECK(type == ScalarType::Float || type == ScalarType::BFloat16, name, " must be float32 or bfloat16");
    return type == ScalarType::BFloat16;
}

// x [rows, columns], bias [outputs] and out [rows, outputs] fit together.
void check_rows(const Tensor& x, const std::optional<Tensor>& bias, const Tensor& out, int64_t columns, int64_t outputs) {
    STD_TORCH_CHECK(x.dim() == 2 && x.size(1) == columns && (x.stride(1) == 1 || columns == 1), "x must be [rows, ", columns,
                    "]");
    STD_TORCH_CHECK(out.dim() == 2 && out.size(0) == x.size(0) && out.size(1) == outputs && out.is_contiguous() &&
                        out.scalar_type() == x.scalar_type(),
                    "out must be [rows, ", outputs, "] in x's dtype");
    STD_TORCH_CHECK(!bias || (bias->dim() == 1 && bias->size(0) == outputs && bias->is_contiguous() &&
                              bias->scalar_type() == x.scalar_type()),
                    "bias must be [", outputs, "] in x's dtype");
}

int64_t best_level() { return linear::best_integer_level(); }
bool has_bf16() { return linear::has_bf16_level(); }

void multiply_bf16(const Tensor& x, const Tensor& packed, const std::optional<Tensor>& bias, int64_t columns, int64_t outputs,
                   int64_t chain, Tensor out) {
    STD_TORCH_CHECK(linear::has_bf16_level(), "this CPU has no AVX512-BF16");
    STD_TORCH_CHECK(packed.dim() == 3 && packed.scalar_type() == ScalarType::Int && packed.is_contiguous() &&
                        packed.size(0) * linear::BLOCK >= outputs && 2 * packed.size(1) >= columns &&
                        packed.size(2) == linear::BLOCK,
                    "packed must be int32 [blocks, pairs, 64]");
    STD_TORCH_CHECK(is_bf16(x, "x"), "x must be bfloat16");
    STD_TORCH_CHECK(chain >= 0 && chain % (2 * linear::CHAIN_UNIT) == 0, "chain must be a multiple of ",
                    2 * linear::CHAIN_UNIT);
    check_rows(x, bias, out, columns, outputs);
    linear::Dense call = {};
    call.x = static_cast<const uint16_t*>(x.const_data_ptr());
    call.x_stride = x.stride(0);
    call.rows = x.size(0), call.columns = columns, call.outputs = outputs;
    call.weight = static_cast<const uint16_t*>(packed.const_data_ptr());
    call.pairs = packed.size(1);
    call.bias = bias ? static_cast<const uint16_t*>(bias->const_data_ptr()) : nullptr;
    call.out = static_cast<uint16_t*>(out.mutable_data_ptr());
    call.chain = chain / 2;
    call.threads = threads_of_torch();
    if (call.rows > 0 && columns > 0) linear::multiply(call);
}

void pack_bf16(const Tensor& weight, Tensor packed) {
    STD_TORCH_CHECK(weight.dim() == 2 && weight.is_contiguous() && weight.scalar_type() == ScalarType::BFloat16,
                    "weight must be bfloat16 [outputs, columns], contiguous");
    const int64_t outputs = weight.size(0), columns = weight.size(1);
    STD_TORCH_CHECK(packed.scalar_type() == ScalarType::Int && packed.is_contiguous() && packed.dim() == 3 &&
                        packed.size(0) == (outputs + linear::BLOCK - 1) / linear::BLOCK &&
                        packed.size(1) == (columns + 1) / 2 && packed.size(2) == linear::BLOCK,
                    "packed must be int32 [blocks, pairs, 64]");
    linear::pack(static_cast<const uint16_t*>(weight.const_data_ptr()), outputs, columns,
                 static_cast<int32_t*>(packed.mutable_data_ptr()), threads_of_torch());
}

linear::Quantized quantized(const Tensor& blocks, int64_t columns, int64_t outputs, int64_t bits, int64_t group, void* memory) {
    STD_TORCH_CHECK(bits == 4 || bits == 8, "bits must be 4 or 8");
    STD_TORCH_CHECK(group >= 16 && group <= linear::MAX_GROUP && group % 16 == 0, "group must be a multiple of 16 up to ",
                    linear::MAX_GROUP);
    STD_TORCH_CHECK(columns > 0 && outputs > 0, "a weight must have rows and columns");
    linear::Quantized weight = {static_cast<uint8_t*>(memory), columns, outputs, int(bits), int(group)};
    STD_TORCH_CHECK(blocks.scalar_type() == ScalarType::Byte && blocks.is_contiguous() &&
                        blocks.numel() == weight.num_blocks() * weight.block_bytes(),
                    "blocks must be uint8, ", weight.num_blocks() * weight.block_bytes(), " bytes");
    return weight;
}

int check_level(int64_t level) {
    STD_TORCH_CHECK(level >= 0 && level <= linear::best_integer_level(), "this CPU has no level ", level);
    return static_cast<int>(level);
}

void quantize(const Tensor& weight, int64_t bits, int64_t group, int64_t level, Tensor blocks) {
    STD_TORCH_CHECK(weight.dim() == 2 && weight.is_contiguous(), "weight must be [outputs, columns], contiguous");
    const linear::Quantized to = quantized(blocks, weight.size(1), weight.size(0), bits, group, blocks.mutable_data_ptr());
    linear::quantize(to, weight.const_data_ptr(), is_bf16(weight, "weight"), check_level(level), threads_of_torch());
}

void multiply_quantized(const Tensor& x, const Tensor& blocks, const std::optional<Tensor>& bias, int64_t columns,
                        int64_t outputs, int64_t bits, int64_t group, int64_t level, Tensor out) {
    linear::QuantizedProduct call = {};
    call.weight = quantized(blocks, columns, outputs, bits, group, const_cast<void*>(blocks.const_data_ptr()));
    check_rows(x, bias, out, columns, outputs);
    call.x = x.const_data_ptr();
    call.x_stride = x.stride(0);
    call.rows = x.size(0);
    call.bf16 = is_bf16(x, "x");
    call.bias = bias ? bias->const_data_ptr() : nullptr;
    call.out = out.mutable_data_ptr();
    call.level = check_level(level);
    call.threads = threads_of_torch();
    if (call.rows > 0) linear::multiply(call);
}

void read_rows(const Tensor& blocks, const Tensor& ids, int64_t columns, int64_t outputs, int64_t bits, int64_t group,
               Tensor out) {
    const linear::Quantized from =
        quantized(blocks, columns, outputs, bits, group, const_cast<void*>(blocks.const_data_ptr()));
    STD_TORCH_CHECK(ids.dim() == 1 && ids.scalar_type() == ScalarType::Long && ids.is_contiguous(), "ids must be int64 [n]");
    STD_TORCH_CHECK(out.dim() == 2 && out.size(0) == ids.size(0) && out.size(1) == columns && out.is_contiguous(),
                    "out must be [n, ", columns, "]");
    const int64_t* values = static_cast<const int64_t*>(ids.const_data_ptr());
    for (int64_t i = 0; i < ids.size(0); i++) {
        STD_TORCH_CHECK(values[i] >= 0 && values[i] < outputs, "row ", values[i], " is out of range: there are ", outputs);
    }
    linear::read_rows(from, values, ids.size(0), out.mutable_data_ptr(), is_bf16(out, "out"));
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(ramify, m) {
    m.def("linear_best_level() -> int");
    m.def("linear_has_bf16() -> bool");
    m.def(
        "linear_bf16(Tensor x, Tensor packed, Tensor? bias, int columns, int outputs, int chain, Tensor(a!) out) -> ()");
    m.def("linear_pack_bf16(Tensor weight, Tensor(a!) packed) -> ()");
    m.def("linear_quantize(Tensor weight, int bits, int group, int level, Tensor(a!) blocks) -> ()");
    m.def(
        "linear_quantized(Tensor x, Tensor blocks, Tensor? bias, int columns, int outputs, int bits, int group, int level, "
        "Tensor(a!) out) -> ()");
    m.def(
        "linear_quantized_rows(Tensor blocks, Tensor ids, int columns, int outputs, int bits, int group, "
        "Tensor(a!) out) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(ramify, CompositeExplicitAutograd, m) {
    m.impl("linear_best_level", TORCH_BOX(&best_level));
    m.impl("linear_has_bf16", TORCH_BOX(&has_bf16));
}

STABLE_TORCH_LIBRARY_IMPL(ramify, CPU, m) {
    m.impl("linear_bf16", TORCH_BOX(&multiply_bf16));
    m.impl("linear_pack_bf16", TORCH_BOX(&pack_bf16));
    m.impl("linear_quantize", TORCH_BOX(&quantize));
    m.impl("linear_quantized", TORCH_BOX(&multiply_quantized));
    m.impl("linear_quantized_rows", TORCH_BOX(&read_rows));
}
