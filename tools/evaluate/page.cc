// The report as one HTML page: page/page.html with the style, the script and
// the report's own JSON put into it.
#include <string>

#include "absl/strings/str_replace.h"
#include "tools/evaluate/evaluate.h"
#include "tools/evaluate/page_parts.h"

namespace svdserve {
namespace {

// Within a script element nothing but "</script" and "<!--" has a meaning, and
// JSON has "<" in strings only.
std::string ForScript(const std::string& json) {
  return absl::StrReplaceAll(json, {{"<", "\\u003c"}});
}

}  // namespace

std::string Evaluation::ToHtml() const {
  return absl::StrReplaceAll(kPageHtml, {{"{{style}}", kPageStyle},
                                         {"{{script}}", kPageScript},
                                         {"{{report}}", ForScript(ToJson())}});
}

}  // namespace svdserve
