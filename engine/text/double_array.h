// A trie over bytes as a double array: one memory access a step.
//
// The child of a node over byte b is node base + b, if that node's parent says
// so. DoubleArrayBuilder places the nodes (WordPiece adds links of its own);
// ByteTrie is the plain map from strings to values. Immutable after Build.
//
//   ByteTrie trie = ByteTrie::Build({{"ab", 7}});
//   uint32_t node = ByteTrie::kRoot;
//   while (p < end && trie.Step(*p, &node)) ++p;
#ifndef SVDSERVE_ENGINE_TEXT_DOUBLE_ARRAY_H_
#define SVDSERVE_ENGINE_TEXT_DOUBLE_ARRAY_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string_view>
#include <utility>
#include <vector>

namespace svdserve {

class DoubleArrayBuilder {
 public:
  static constexpr uint32_t kNone = UINT32_MAX;
  struct Node {
    uint32_t base = 0;
    uint32_t parent = kNone;  // kNone: free
  };
  struct Key {
    std::string_view text;  // not empty
    uint32_t value;
    bool operator<(const Key& other) const { return text < other.text; }
  };
  struct NewNode {
    uint32_t node;
    uint32_t depth;
    uint8_t byte;
    const Key* key;  // that ends here, or nullptr
  };
  using OnNode = std::function<void(const NewNode&)>;

  // Nodes [0, roots) are the roots of as many tries.
  explicit DoubleArrayBuilder(uint32_t roots);

  // Adds sorted keys below `root`; of equal ones the last counts. Reports
  // every new node, in the order of their depth.
  void AddTrie(uint32_t root, const std::vector<Key>& keys,
               const OnNode& on_node);

  // base + any byte is inside.
  const std::vector<Node>& nodes() const { return nodes_; }
  std::vector<Node> TakeNodes() { return std::move(nodes_); }

 private:
  // The keys [begin, end) share their first `depth` bytes: those of `node`.
  struct Range {
    uint32_t node;
    uint32_t depth;
    size_t begin;
    size_t end;
  };
  void AddChildren(const Range& range, const std::vector<Key>& keys,
                   const OnNode& on_node, std::vector<Range>* queue);
  uint32_t FindBase(const std::vector<uint8_t>& bytes);
  void Reserve(size_t size);

  const uint32_t roots_;
  std::vector<Node> nodes_;
  uint32_t first_free_;  // no gap before it
  uint32_t first_wide_;  // no gap worth trying before it
};

class ByteTrie {
 public:
  using Key = DoubleArrayBuilder::Key;
  static constexpr uint32_t kRoot = 0;
  static constexpr uint32_t kNone = UINT32_MAX;

  ByteTrie() = default;
  // Empty keys are left out; of equal ones the last counts.
  static ByteTrie Build(std::vector<Key> keys);

  // Moves `node` over `byte`; false, and no move, if no key goes on so.
  bool Step(uint8_t byte, uint32_t* node) const {
    const uint32_t next = (nodes_[*node].base >> 1) + byte;
    if (nodes_[next].parent != *node) return false;
    *node = next;
    return true;
  }
  bool HasValue(uint32_t node) const { return nodes_[node].base & 1; }
  uint32_t Value(uint32_t node) const { return values_[node]; }
  // All nodes are below it.
  size_t size() const { return nodes_.size(); }
  // The node of all of `text` below `node`, or kNone.
  uint32_t Walk(std::string_view text, uint32_t node = kRoot) const;
  // The value of a key, or kNone.
  uint32_t Find(std::string_view text) const;

 private:
  std::vector<DoubleArrayBuilder::Node> nodes_;  // base: 2 * base + has value
  std::vector<uint32_t> values_;                 // by node
};

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_TEXT_DOUBLE_ARRAY_H_
