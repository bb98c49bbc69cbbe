// torch.ops.ramify.layers_*: a stack of layers is made once, from its parts, and run once a step. The caller keeps the parts, and
// the pools that it has bound.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <vector>

#include "attention_plan.h"
#include "fused.h"
#include "layers.h"

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using namespace ramify_layers;

struct Made {
    Stack stack;
    std::vector<Product> products;
};

// Objects by the number that Python knows them by.
template <class T>
class Numbered {
  public:
    int64_t add(T made) {
        std::lock_guard<std::mutex> hold(mutex_);
        objects_[++last_] = std::make_shared<T>(std::move(made));
        return last_;
    }
    std::shared_ptr<T> at(int64_t number, const char* name) {
        std::lock_guard<std::mutex> hold(mutex_);
        const auto found = objects_.find(number);
        STD_TORCH_CHECK(found != objects_.end(), "there are no ", name, " ", number);
        return found->second;
    }
    void remove(int64_t number) {
        std::lock_guard<std::mutex> hold(mutex_);
        objects_.erase(number);
    }

  private:
    std::mutex mutex_;
    std::unordered_map<int64_t, std::shared_ptr<T>> objects_;
    int64_t last_ = 0;
};

// Never destroyed: Python may free what it holds at its end.
Numbered<Made>& stacks() {
    static auto* made = new Numbered<Made>;
    return *made;
}
Numbered<Pools>& all_pools() {
    static auto* made = new Numbered<Pools>;
    return *made;
}
std::shared_ptr<Made> stack_at(int64_t number) { return stacks().at(number, "layers"); }

ScalarType type_of(const Stack& stack) { return stack.dtype == RAMIFY_BF16 ? ScalarType::BFloat16 : ScalarType::Float; }

const void* whole(const Tensor& tensor, const char* name, ScalarType type, int64_t count) {
    STD_TORCH_CHECK(tensor.numel() == count && tensor.is_contiguous() && tensor.scalar_type() == type, name,
                    " must be contiguous, in the stack's dtype, with ", count, " elements");
    return tensor.const_data_ptr();
}

const int64_t* indices(const Tensor& tensor, const char* name, int64_t end) {
    STD_TORCH_CHECK(tensor.dim() == 1 && tensor.scalar_type() == ScalarType::Long && tensor.is_contiguous(), name,
                    " must be contiguous int64 in one dimension");
    const int64_t* values = static_cast<const int64_t*>(tensor.const_data_ptr());
    for (int64_t i = 0; i < tensor.size(0); i++) {
        STD_TORCH_CHECK(values[i] >= 0 && values[i] < end, name, ": ", values[i], " is not below ", end);
    }
    return values;
}

int64_t make(const Tensor& first_norm, const Tensor& rope, int64_t heads, int64_t kv_heads, int64_t head_dim, double eps,
             int64_t fused_level, int64_t attention_level) {
    Stack stack = {};
    const ScalarType type = first_norm.scalar_type();
    STD_TORCH_CHECK(type == ScalarType::Float || type == ScalarType::BFloat16, "first_norm must be float32 or bfloat16");
    const int64_t best = ramify_best_level();
    STD_TORCH_CHECK(fused_level >= 0 && fused_level <= best && attention_level >= 0 && attention_level <= best,
                    "this CPU has no level ", fused_level, " or ", attention_level);
    STD_TORCH_CHECK(head_dim % 16 == 0 && head_dim >= 16 && head_dim <= 256 && kv_heads > 0 && heads % kv_heads == 0,
                    "no attention of ", heads, " heads, ", kv_heads, " KV heads and head_dim ", head_dim);
    stack.dtype = type == ScalarType::Float ? RAMIFY_FP32 : RAMIFY_BF16;
    stack.hidden = first_norm.numel();
    stack.heads = heads, stack.kv_heads = kv_heads, stack.head_dim = head_dim, stack.eps = eps;
    stack.fused_level = static_cast<int>(fused_level), stack.attention_level = static_cast<int>(attention_level);
    stack.first_norm = whole(first_norm, "first_norm", type, stack.hidden);
    stack.positions = rope.size(0);
    stack.rope = whole(rope, "rope", type, stack.positions * 2 * head_dim);
    return stacks().add({stack, {}});
}

int64_t add_spec(int64_t number, double scale, int64_t window, double soft_cap, bool causal, int64_t cost_of_piece,
                 int64_t cost_of_joining) {
    STD_TORCH_CHECK(window >= 0, "window must not be negative");
    STD_TORCH_CHECK(cost_of_piece >= 0 && cost_of_joining >= 0, "costs must not be negative");
    std::vector<Spec>& specs = stack_at(number)->stack.specs;
    specs.push_back({static_cast<float>(scale), static_cast<float>(soft_cap), static_cast<int32_t>(window), causal,
                     cost_of_piece, cost_of_joining});
    return static_cast<int64_t>(specs.size()) - 1;
}

int64_t keep(int64_t number, const Product& product) {
    std::vector<Product>& products = stack_at(number)->products;
    products.push_back(product);
    return static_cast<int64_t>(products.size()) - 1;
}

// See kernels/cpp/bind_linear.cpp.
int64_t add_bf16(int64_t number, const Tensor& packed, const std::optional<Tensor>& bias, int64_t columns, int64_t outputs,
                 int64_t chain) {
    namespace linear = ramify_linear;
    STD_TORCH_CHECK(linear::has_bf16_level(), "this CPU has no AVX512-BF16");
    STD_TORCH_CHECK(stack_at(number)->stack.dtype == RAMIFY_BF16, "the stack must be in bfloat16");
    STD_TORCH_CHECK(packed.dim() == 3 && packed.scalar_type() == ScalarType::Int && packed.is_contiguous() && columns > 0 &&
                        packed.size(0) * linear::BLOCK >= outputs && 2 * packed.size(1) >= columns &&
                        packed.size(2) == linear::BLOCK,
                    "packed must be int32 [blocks, pairs, 64]");
    STD_TORCH_CHECK(chain >= 0 && chain % (2 * linear::CHAIN_UNIT) == 0, "chain must be a multiple of ",
                    2 * linear::CHAIN_UNIT);
    Product product = {};
    product.dense = true;
    product.bf16.columns = columns, product.bf16.outputs = outputs, product.bf16.pairs = packed.size(1);
    product.bf16.weight = static_cast<const uint16_t*>(packed.const_data_ptr());
    if (bias) product.bf16.bias = static_cast<const uint16_t*>(whole(*bias, "bias", ScalarType::BFloat16, outputs));
    product.bf16.chain = chain / 2;
    return keep(number, product);
}

int64_t add_quantized(int64_t number, const Tensor& blocks, const std::optional<Tensor>& bias, int64_t columns, int64_t outputs,
                      int64_t bits, int64_t group, int64_t level) {
    namespace linear = ramify_linear;
    STD_TORCH_CHECK((bits == 4 || bits == 8) && group >= 16 && group <= linear::MAX_GROUP && group % 16 == 0 && columns > 0 &&
                        outputs > 0,
                    "no weight [", outputs, ", ", columns, "] in ", bits, " bits and groups of ", group);
    STD_TORCH_CHECK(level >= 0 && level <= linear::best_integer_level(), "this CPU has no level ", level);
    const Stack& stack = stack_at(number)->stack;
    Product product = {};
    linear::Quantized& weight = product.integers.weight;
    weight = {static_cast<uint8_t*>(const_cast<void*>(blocks.const_data_ptr())), columns, outputs, int(bits), int(group)};
    STD_TORCH_CHECK(blocks.scalar_type() == ScalarType::Byte && blocks.is_contiguous() &&
                        blocks.numel() == weight.num_blocks() * weight.block_bytes(),
                    "blocks must be uint8, ", weight.num_blocks() * weight.block_bytes(), " bytes");
    product.integers.bf16 = stack.dtype == RAMIFY_BF16;
    if (bias) product.integers.bias = whole(*bias, "bias", type_of(stack), outputs);
    product.integers.level = static_cast<int>(level);
    return keep(number, product);
}

// products: of qkv, o, gate_up and down. spec: a number that add_spec has returned.
void add_layer(int64_t number, std::vector<int64_t> products, const Tensor& mlp_norm, const Tensor& next_norm,
               const std::optional<Tensor>& qk_norm, int64_t spec) {
    const std::shared_ptr<Made> made = stack_at(number);
    Stack& stack = made->stack;
    STD_TORCH_CHECK(products.size() == 4 && spec >= 0 && spec < int64_t(stack.specs.size()), "a layer has 4 products and a spec");
    Layer layer = {};
    Product* const places[] = {&layer.qkv, &layer.o, &layer.gate_up, &layer.down};
    for (int i = 0; i < 4; i++) {
        STD_TORCH_CHECK(products[i] >= 0 && products[i] < int64_t(made->products.size()), "no product ", products[i]);
        *places[i] = made->products[products[i]];
    }
    const int64_t width = stack.heads * stack.head_dim, inner = layer.down.columns();
    if (stack.layers.empty()) stack.inner = inner;
    STD_TORCH_CHECK(layer.qkv.columns() == stack.hidden && layer.qkv.outputs() == width + 2 * stack.kv_heads * stack.head_dim &&
                        layer.o.columns() == width && layer.o.outputs() == stack.hidden &&
                        layer.gate_up.columns() == stack.hidden && layer.gate_up.outputs() == 2 * inner &&
                        layer.down.outputs() == stack.hidden && inner == stack.inner,
                    "the products of layer ", stack.layers.size(), " do not fit together");
    layer.mlp_norm = whole(mlp_norm, "mlp_norm", type_of(stack), stack.hidden);
    layer.next_norm = whole(next_norm, "next_norm", type_of(stack), stack.hidden);
    if (qk_norm) {
        layer.qk_norm = whole(*qk_norm, "qk_norm", type_of(stack), (stack.heads + stack.kv_heads) * stack.head_dim);
    }
    layer.spec = static_cast<int>(spec);
    stack.layers.push_back(layer);
}

// pools: K and V of each layer in turn, which the caller keeps.
int64_t bind_pools(int64_t number, std::vector<Tensor> pools) {
    const std::shared_ptr<Made> made = stack_at(number);
    const Stack& stack = made->stack;
    STD_TORCH_CHECK(pools.size() == 2 * stack.layers.size() && !pools.empty(), "pools must be K and V of ",
                    stack.layers.size(), " layers");
    const bool int8 = pools[0].scalar_type() == ScalarType::Char;
    STD_TORCH_CHECK(!int8 || stack.head_dim <= RAMIFY_LARGEST_HEAD, "pools in int8 take a head_dim of at most ",
                    RAMIFY_LARGEST_HEAD);
    Pools bound = {std::vector<Pools::Layer>(stack.layers.size()), pools[0].size(0), int8 ? int32_t(RAMIFY_INT8) : stack.dtype};
    const int64_t row = stack.head_dim + (int8 ? RAMIFY_SCALE_BYTES : 0);
    for (size_t i = 0; i < pools.size(); i++) {
        whole(pools[i], "a pool", int8 ? ScalarType::Char : type_of(stack), bound.slots * stack.kv_heads * row);
        (i % 2 ? bound.layers[i / 2].v : bound.layers[i / 2].k) = pools[i].mutable_data_ptr();
    }
    return all_pools().add(std::move(bound));
}

// pools: what bind_pools has returned for this stack. Shapes are those of kernels/layers/interface.py, a plan's those of
// kernels/attention/native.py.
void run_layers(int64_t number, int64_t pools, Tensor x, const Tensor& positions, const Tensor& slots, const Tensor& page_table,
                int64_t page_size, const Tensor& spans, const Tensor& sharing, const Tensor& wanted, Tensor out) {
    const std::shared_ptr<Made> made = stack_at(number);
    const std::shared_ptr<Pools> bound = all_pools().at(pools, "pools");
    const Stack& stack = made->stack;
    STD_TORCH_CHECK(x.dim() == 2, "x must have 2 dimensions");
    STD_TORCH_CHECK(bound->layers.size() == stack.layers.size() && (bound->dtype == stack.dtype || bound->dtype == RAMIFY_INT8), "the pools are another stack's");
    Step step = {};
    step.tokens = x.size(0), step.num_wanted = wanted.size(0), step.pools = bound.get();
    whole(x, "x", type_of(stack), step.tokens * stack.hidden);
    whole(out, "out", type_of(stack), step.num_wanted * stack.hidden);
    STD_TORCH_CHECK(positions.size(0) == step.tokens && slots.size(0) == step.tokens, "a token has a position and a slot");
    step.x = x.mutable_data_ptr(), step.out = out.mutable_data_ptr();
    step.positions = indices(positions, "positions", stack.positions);
    step.slots = indices(slots, "slots", bound->slots);
    step.wanted = indices(wanted, "wanted", step.tokens);
    ramify::set_plan(page_table, page_size, spans, sharing, step.tokens, step.plan);
    uint32_t threads = 1;
    TORCH_ERROR_CODE_CHECK(torch_get_num_threads(&threads));
    step.threads = static_cast<int>(threads);
    if (step.tokens > 0) STD_TORCH_CHECK(run(stack, step) == 0, "the page table names a page that is not in the pool");
}

void free_pools(int64_t number) { all_pools().remove(number); }

void free_stack(int64_t number) { stacks().remove(number); }

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(ramify, m) {
    m.def(
        "layers_make(Tensor first_norm, Tensor rope, int heads, int kv_heads, int head_dim, float eps, int fused_level, "
        "int attention_level) -> int");
    m.def(
        "layers_add_spec(int stack, float scale, int window, float soft_cap, bool causal, int cost_of_piece, "
        "int cost_of_joining) -> int");
    m.def("layers_add_bf16(int stack, Tensor packed, Tensor? bias, int columns, int outputs, int chain) -> int");
    m.def(
        "layers_add_quantized(int stack, Tensor blocks, Tensor? bias, int columns, int outputs, int bits, int group, "
        "int level) -> int");
    m.def("layers_add(int stack, int[] products, Tensor mlp_norm, Tensor next_norm, Tensor? qk_norm, int spec) -> ()");
    m.def("layers_bind_pools(int stack, Tensor[] pools) -> int");
    m.def(
        "layers_run(int stack, int pools, Tensor(a!) x, Tensor positions, Tensor slots, Tensor page_table, int page_size, "
        "Tensor spans, Tensor sharing, Tensor wanted, Tensor(b!) out) -> ()");
    m.def("layers_free(int stack) -> ()");
    m.def("layers_free_pools(int pools) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(ramify, CompositeExplicitAutograd, m) {
    m.impl("layers_add_spec", TORCH_BOX(&add_spec));
    m.impl("layers_free", TORCH_BOX(&free_stack));
    m.impl("layers_free_pools", TORCH_BOX(&free_pools));
}

STABLE_TORCH_LIBRARY_IMPL(ramify, CPU, m) {
    m.impl("layers_make", TORCH_BOX(&make));
    m.impl("layers_add_bf16", TORCH_BOX(&add_bf16));
    m.impl("layers_add_quantized", TORCH_BOX(&add_quantized));
    m.impl("layers_add", TORCH_BOX(&add_layer));
    m.impl("layers_bind_pools", TORCH_BOX(&bind_pools));
    m.impl("layers_run", TORCH_BOX(&run_layers));
}
