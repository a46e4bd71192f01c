#include "engine/text/word_piece.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/text/unicode.h"

namespace svdserve {
namespace {

// A bound for what a damaged or hostile vocabulary can make us allocate.
constexpr size_t kMaxTokenBytes = 1024;
constexpr size_t kMaxPops = size_t{1} << 26;
constexpr uint32_t kAlphabet = 256;

}  // namespace

class WordPieceBuilder {
 public:
  absl::StatusOr<WordPiece> Build(const std::vector<WordPiece::Token>& tokens,
                                  std::string_view prefix, size_t max_chars);

 private:
  static constexpr uint32_t kNone = WordPiece::kNone;
  using Piece = WordPiece::Piece;

  struct Key {
    std::string_view text;  // without the prefix
    int32_t id;
    bool operator<(const Key& other) const { return text < other.text; }
  };
  // The keys [begin, end) share their first `depth` bytes: those of `node`.
  struct Range {
    uint32_t node;
    uint32_t depth;
    size_t begin;
    size_t end;
  };

  static std::vector<Key> Keys(const std::vector<WordPiece::Token>& tokens,
                               std::string_view prefix, size_t max_chars);
  void AddTrie(uint32_t root, const std::vector<Key>& keys);
  void AddChildren(const Range& range, const std::vector<Key>& keys,
                   std::vector<Range>* queue);
  uint32_t FindBase(const std::vector<uint8_t>& bytes);
  void Reserve(size_t size);

  // In breadth-first order over both tries: a link leads to a shorter string.
  absl::Status Link();
  absl::Status LinkNode(uint32_t node);
  bool Child(uint32_t node, uint8_t byte, uint32_t* child) const;
  std::vector<Piece> List(uint32_t index) const;
  uint32_t AddList(const std::vector<Piece>& list);

  WordPiece out_;
  uint32_t first_free_ = 2;  // no gap before it
  uint32_t first_wide_ = 2;  // no gap worth trying before it
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
    keys.push_back({text, token.id});
  }
  std::sort(keys.begin(), keys.end());
  return keys;
}

void WordPieceBuilder::Reserve(size_t size) {
  if (size <= out_.nodes_.size()) return;
  size = std::max(size, out_.nodes_.size() * 3 / 2);
  out_.nodes_.resize(size);
  pieces_.resize(size, {-1, 0});
  last_byte_.resize(size);
}

// First fit. Nodes of one child fill the gaps; for those of more, gaps that
// proved too tight are passed over for good, so that the search stays short.
uint32_t WordPieceBuilder::FindBase(const std::vector<uint8_t>& bytes) {
  constexpr int kMaxSteps = 512;
  std::vector<WordPiece::Node>& nodes = out_.nodes_;
  const auto is_free = [&](uint32_t at) {
    return at >= nodes.size() || (at >= 2 && nodes[at].parent == kNone);
  };
  uint32_t& start = bytes.size() == 1 ? first_free_ : first_wide_;
  while (!is_free(start) || start < bytes[0]) ++start;
  int steps = 0;
  for (uint32_t at = start; at < nodes.size(); ++at) {
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
  return static_cast<uint32_t>(nodes.size());
}

void WordPieceBuilder::AddChildren(const Range& range,
                                   const std::vector<Key>& keys,
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
  out_.nodes_[range.node].base = base;
  for (size_t i = 0; i < bytes.size(); ++i) {
    const uint32_t child = base + bytes[i];
    out_.nodes_[child].parent = range.node;
    last_byte_[child] = bytes[i];
    order_.push_back({range.depth + 1, child});
    Range next{child, range.depth + 1, starts[i], starts[i + 1]};
    // The key that ends here comes first; of equal ones the last one counts.
    while (next.begin < next.end &&
           keys[next.begin].text.size() == next.depth) {
      const Key& key = keys[next.begin++];
      pieces_[child] = {
          key.id, static_cast<uint32_t>(unicode::CountCodePoints(key.text))};
    }
    queue->push_back(next);
  }
}

void WordPieceBuilder::AddTrie(uint32_t root, const std::vector<Key>& keys) {
  std::vector<Range> queue = {{root, 0, 0, keys.size()}};
  for (size_t i = 0; i < queue.size(); ++i) {
    const Range range = queue[i];
    AddChildren(range, keys, &queue);
  }
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
  Reserve(2 + 2 * kAlphabet);
  // No node is its own child, so the roots' parent can be themselves' other.
  out_.nodes_[WordPiece::kHeadRoot].parent = kNone - 1;
  out_.nodes_[WordPiece::kTailRoot].parent = kNone - 1;
  AddTrie(WordPiece::kHeadRoot, Keys(tokens, "", max_chars));
  const size_t head_nodes = order_.size();
  AddTrie(WordPiece::kTailRoot, Keys(tokens, prefix, max_chars));
  std::vector<uint32_t> head(head_nodes);
  for (size_t i = 0; i < head_nodes; ++i) head[i] = order_[i].second;
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
  return nodes_.size() * sizeof(Node) + links_.size() * sizeof(Links) +
         pops_.size() * sizeof(Piece);
}

}  // namespace svdserve
