#include "engine/text/double_array.h"

#include <algorithm>
#include <string>
#include <utility>

namespace svdserve {
namespace {

constexpr uint32_t kAlphabet = 256;

// Copies the texts of the keys into `out`, in their order: a trie is built
// level by level, and would otherwise find each text in another cache line.
void Gather(std::vector<DoubleArrayBuilder::Key>* keys, std::string* out) {
  size_t size = 0;
  for (const DoubleArrayBuilder::Key& key : *keys) size += key.text.size();
  out->reserve(size);
  for (DoubleArrayBuilder::Key& key : *keys) {
    const char* const text = out->data() + out->size();
    out->append(key.text);
    key.text = {text, key.text.size()};
  }
}

}  // namespace

DoubleArrayBuilder::DoubleArrayBuilder(uint32_t roots)
    : roots_(roots), first_free_(roots), first_wide_(roots) {
  Reserve(roots + 2 * kAlphabet);
  // No node is a root's parent, and no root is free.
  for (uint32_t root = 0; root < roots; ++root) nodes_[root].parent = kNone - 1;
}

void DoubleArrayBuilder::Reserve(size_t size) {
  if (size <= nodes_.size()) return;
  nodes_.resize(std::max(size, nodes_.size() * 3 / 2));
}

// First fit. Nodes of one child fill the gaps; for those of more, gaps that
// proved too tight are passed over for good, so that the search stays short.
uint32_t DoubleArrayBuilder::FindBase(const std::vector<uint8_t>& bytes) {
  constexpr int kMaxSteps = 512;
  const auto is_free = [&](uint32_t at) {
    return at >= nodes_.size() || (at >= roots_ && nodes_[at].parent == kNone);
  };
  uint32_t& start = bytes.size() == 1 ? first_free_ : first_wide_;
  while (!is_free(start) || start < bytes[0]) ++start;
  int steps = 0;
  for (uint32_t at = start; at < nodes_.size(); ++at) {
    const uint32_t base = at - bytes[0];
    if (at >= bytes[0] &&
        std::all_of(bytes.begin(), bytes.end(),
                    [&](uint8_t b) { return is_free(base + b); })) {
      return base;
    }
    if (++steps == kMaxSteps) {
      start = at;
      steps = 0;
    }
  }
  return static_cast<uint32_t>(nodes_.size());
}

void DoubleArrayBuilder::AddChildren(const Range& range,
                                     const std::vector<Key>& keys,
                                     const OnNode& on_node,
                                     std::vector<Range>* queue) {
  std::vector<uint8_t> bytes;
  std::vector<size_t> starts;
  for (size_t k = range.begin; k < range.end; ++k) {
    const auto byte = static_cast<uint8_t>(keys[k].text[range.depth]);
    if (bytes.empty() || bytes.back() != byte) {
      bytes.push_back(byte);
      starts.push_back(k);
    }
  }
  if (bytes.empty()) return;
  starts.push_back(range.end);
  const uint32_t base = FindBase(bytes);
  Reserve(size_t{base} + 2 * kAlphabet);
  nodes_[range.node].base = base;
  for (size_t i = 0; i < bytes.size(); ++i) {
    const uint32_t child = base + bytes[i];
    nodes_[child].parent = range.node;
    Range next{child, range.depth + 1, starts[i], starts[i + 1]};
    // The keys that end here come first.
    const Key* key = nullptr;
    while (next.begin < next.end &&
           keys[next.begin].text.size() == next.depth) {
      key = &keys[next.begin++];
    }
    on_node({child, next.depth, bytes[i], key});
    queue->push_back(next);
  }
}

void DoubleArrayBuilder::AddTrie(uint32_t root, const std::vector<Key>& keys,
                                 const OnNode& on_node) {
  std::vector<Range> queue = {{root, 0, 0, keys.size()}};
  for (size_t i = 0; i < queue.size(); ++i) {
    const Range range = queue[i];
    AddChildren(range, keys, on_node, &queue);
  }
}

ByteTrie ByteTrie::Build(std::vector<Key> keys) {
  std::erase_if(keys, [](const Key& key) { return key.text.empty(); });
  std::stable_sort(keys.begin(), keys.end());
  std::string texts;
  Gather(&keys, &texts);
  DoubleArrayBuilder builder(1);
  std::vector<std::pair<uint32_t, uint32_t>> values;  // (node, value)
  builder.AddTrie(kRoot, keys, [&](const DoubleArrayBuilder::NewNode& node) {
    if (node.key != nullptr) values.push_back({node.node, node.key->value});
  });
  ByteTrie out;
  out.nodes_ = builder.TakeNodes();
  for (DoubleArrayBuilder::Node& node : out.nodes_) node.base *= 2;
  out.values_.resize(out.nodes_.size(), kNone);
  for (const auto& [node, value] : values) {
    out.nodes_[node].base |= 1;
    out.values_[node] = value;
  }
  return out;
}

uint32_t ByteTrie::Walk(std::string_view text, uint32_t node) const {
  for (const char c : text) {
    if (!Step(static_cast<uint8_t>(c), &node)) return kNone;
  }
  return node;
}

uint32_t ByteTrie::Find(std::string_view text) const {
  if (nodes_.empty()) return kNone;
  const uint32_t node = Walk(text);
  return node != kNone && HasValue(node) ? Value(node) : kNone;
}

}  // namespace svdserve
