#include "engine/text/word_piece.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/text/double_array.h"
#include "engine/text/unicode.h"

namespace svdserve {
namespace {

// A bound for what a damaged or hostile vocabulary can make us allocate.
constexpr size_t kMaxTokenBytes = 1024;
constexpr size_t kMaxPops = size_t{1} << 26;

}  // namespace

class WordPieceBuilder {
 public:
  absl::StatusOr<WordPiece> Build(const std::vector<WordPiece::Token>& tokens,
                                  std::string_view prefix, size_t max_chars);

 private:
  static constexpr uint32_t kNone = WordPiece::kNone;
  using Piece = WordPiece::Piece;

  using Key = DoubleArrayBuilder::Key;

  static std::vector<Key> Keys(const std::vector<WordPiece::Token>& tokens,
                               std::string_view prefix, size_t max_chars);
  void AddTrie(uint32_t root, const std::vector<Key>& keys);

  // In breadth-first order over both tries: a link leads to a shorter string.
  absl::Status Link();
  absl::Status LinkNode(uint32_t node);
  bool Child(uint32_t node, uint8_t byte, uint32_t* child) const;
  std::vector<Piece> List(uint32_t index) const;
  uint32_t AddList(const std::vector<Piece>& list);

  WordPiece out_;
  DoubleArrayBuilder nodes_{2};
  // Of every node: the piece that it is, if any, and its last byte.
  std::vector<Piece> pieces_;
  std::vector<uint8_t> last_byte_;
  std::vector<std::pair<uint32_t, uint32_t>> order_;  // (depth, node)
};

std::vector<WordPieceBuilder::Key> WordPieceBuilder::Keys(
    const std::vector<WordPiece::Token>& tokens, std::string_view prefix,
    size_t max_chars) {
  std::vector<Key> keys;
  for (const WordPiece::Token& token : tokens) {
    if (token.text.substr(0, prefix.size()) != prefix) continue;
    const std::string_view text = token.text.substr(prefix.size());
    if (text.empty() || unicode::CountCodePoints(text) > max_chars) continue;
    keys.push_back({text, static_cast<uint32_t>(token.id)});
  }
  std::sort(keys.begin(), keys.end());
  return keys;
}

void WordPieceBuilder::AddTrie(uint32_t root, const std::vector<Key>& keys) {
  nodes_.AddTrie(root, keys, [&](const DoubleArrayBuilder::NewNode& node) {
    if (node.node >= pieces_.size()) {
      pieces_.resize(nodes_.nodes().size(), {-1, 0});
      last_byte_.resize(nodes_.nodes().size());
    }
    last_byte_[node.node] = node.byte;
    order_.push_back({node.depth, node.node});
    if (node.key == nullptr) return;
    pieces_[node.node] = {
        static_cast<int32_t>(node.key->value),
        static_cast<uint32_t>(unicode::CountCodePoints(node.key->text))};
  });
}

bool WordPieceBuilder::Child(uint32_t node, uint8_t byte,
                             uint32_t* child) const {
  *child = out_.nodes_[node].base + byte;
  return out_.nodes_[*child].parent == node;
}

std::vector<WordPiece::Piece> WordPieceBuilder::List(uint32_t index) const {
  const auto begin = out_.pops_.begin() + index + 1;
  return {begin, begin + out_.pops_[index].chars};
}

uint32_t WordPieceBuilder::AddList(const std::vector<Piece>& list) {
  const size_t index = out_.pops_.size();
  out_.pops_.push_back({-1, static_cast<uint32_t>(list.size())});
  out_.pops_.insert(out_.pops_.end(), list.begin(), list.end());
  return static_cast<uint32_t>(index);
}

absl::Status WordPieceBuilder::LinkNode(uint32_t node) {
  WordPiece::Links& links = out_.links_[node];
  std::vector<Piece> pops;
  if (pieces_[node].id >= 0) {
    pops = {pieces_[node]};
    links.fail = WordPiece::kTailRoot;
  } else {
    const uint32_t parent = out_.nodes_[node].parent;
    uint32_t from = out_.links_[parent].fail;
    if (from != kNone) pops = List(out_.links_[parent].fail_pops);
    uint32_t child;
    while (from != kNone && !Child(from, last_byte_[node], &child)) {
      const WordPiece::Links& next = out_.links_[from];
      if (next.fail != kNone) {
        const std::vector<Piece> more = List(next.fail_pops);
        pops.insert(pops.end(), more.begin(), more.end());
      }
      from = next.fail;
    }
    if (from == kNone) return absl::OkStatus();
    links.fail = child;
  }
  links.fail_pops = AddList(pops);
  // At the end of a word: these pops, then what remains after the link.
  if (links.fail == WordPiece::kTailRoot) {
    links.end_pops = links.fail_pops;
  } else if (const uint32_t rest = out_.links_[links.fail].end_pops;
             rest != kNone) {
    const std::vector<Piece> more = List(rest);
    pops.insert(pops.end(), more.begin(), more.end());
    links.end_pops = AddList(pops);
  }
  if (out_.pops_.size() > kMaxPops) {
    return absl::InvalidArgumentError(
        "the vocabulary has too many long tokens made of shorter tokens");
  }
  return absl::OkStatus();
}

absl::Status WordPieceBuilder::Link() {
  out_.links_.resize(out_.nodes_.size());
  std::stable_sort(
      order_.begin(), order_.end(),
      [](const auto& a, const auto& b) { return a.first < b.first; });
  for (const auto& [depth, node] : order_) {
    absl::Status status = LinkNode(node);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::StatusOr<WordPiece> WordPieceBuilder::Build(
    const std::vector<WordPiece::Token>& tokens, std::string_view prefix,
    size_t max_chars) {
  for (const WordPiece::Token& token : tokens) {
    if (token.text.size() > kMaxTokenBytes + prefix.size() &&
        unicode::CountCodePoints(token.text) <= max_chars + prefix.size()) {
      return absl::InvalidArgumentError(
          absl::StrCat("token ", token.id, " has ", token.text.size(),
                       " bytes; at most ", kMaxTokenBytes, " are supported"));
    }
  }
  AddTrie(WordPiece::kHeadRoot, Keys(tokens, "", max_chars));
  const size_t head_nodes = order_.size();
  AddTrie(WordPiece::kTailRoot, Keys(tokens, prefix, max_chars));
  std::vector<uint32_t> head(head_nodes);
  for (size_t i = 0; i < head_nodes; ++i) head[i] = order_[i].second;
  out_.nodes_ = nodes_.TakeNodes();
  pieces_.resize(out_.nodes_.size(), {-1, 0});
  absl::Status status = Link();
  if (!status.ok()) return status;
  for (const uint32_t node : head) out_.links_[node].token = pieces_[node].id;
  return std::move(out_);
}

absl::StatusOr<WordPiece> WordPiece::Build(const std::vector<Token>& tokens,
                                           std::string_view continuing_prefix,
                                           size_t max_chars) {
  return WordPieceBuilder().Build(tokens, continuing_prefix, max_chars);
}

size_t WordPiece::bytes() const {
  return nodes_.size() * sizeof(nodes_[0]) + links_.size() * sizeof(Links) +
         pops_.size() * sizeof(Piece);
}

}  // namespace svdserve
