// Text to calibrate with: a user's, or what every Debian and Ubuntu has.
//
//   absl::StatusOr<CalibrationText> text = ReadCalibrationText("", 8192, seed);
#ifndef SVDSERVE_TOOLS_COMPRESS_CALIBRATION_TEXT_H_
#define SVDSERVE_TOOLS_COMPRESS_CALIBRATION_TEXT_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace svdserve {

// What the default is made of, for help and reports.
inline constexpr std::string_view kDefaultCalibration =
    "this system's package descriptions (/var/lib/dpkg/status), installer "
    "questions in many languages (/var/lib/dpkg/info/*.templates), README, "
    "NEWS, TODO and FAQ files (/usr/share/doc), Perl's pods "
    "(/usr/share/perl), and licences (/usr/share/common-licenses) if that is "
    "too little";

struct CalibrationText {
  std::string source;              // what was read, for the report
  std::vector<std::string> texts;  // a seeded sample, in random order
};

// At most `count` texts out of all in `path`: a file, or the files below a
// directory, with one text a line. An empty path means the default. Lines
// longer than a model reads are split between words. The sample depends on the
// text, `count` and `seed` alone. NOT_FOUND if there is no such path,
// INVALID_ARGUMENT if no line has a text.
absl::StatusOr<CalibrationText> ReadCalibrationText(const std::string& path,
                                                    int count, uint64_t seed);

}  // namespace svdserve

#endif  // SVDSERVE_TOOLS_COMPRESS_CALIBRATION_TEXT_H_
