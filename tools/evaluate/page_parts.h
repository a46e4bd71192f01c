// The files of page/, as the build embedded them.
#ifndef SVDSERVE_TOOLS_EVALUATE_PAGE_PARTS_H_
#define SVDSERVE_TOOLS_EVALUATE_PAGE_PARTS_H_

namespace svdserve {

extern const char kPageHtml[];
extern const char kPageStyle[];
extern const char kPageScript[];

}  // namespace svdserve

#endif  // SVDSERVE_TOOLS_EVALUATE_PAGE_PARTS_H_
