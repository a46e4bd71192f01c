// The life of the process: load and warm up, serve, drain on a signal, exit
// with a code that says how it went.
#ifndef SVDSERVE_SERVER_RUN_H_
#define SVDSERVE_SERVER_RUN_H_

#include <string>

#include "absl/status/status.h"
#include "server/config.h"

namespace svdserve {

// The numbers of sysexits.h where one fits.
enum ExitCode {
  kExitOk = 0,           // drained: everything accepted was answered
  kExitUsage = 64,       // a command-line flag is wrong
  kExitModel = 66,       // the model could not be loaded
  kExitBind = 69,        // a port could not be bound
  kExitInternal = 70,    // a fault of the server
  kExitNoDevice = 71,    // every device was lost while it served
  kExitDrainBound = 75,  // the drain's bound was reached: some accepted
                         // requests were answered UNAVAILABLE
  kExitConfig = 78,      // the configuration is wrong
};

// SIGTERM and SIGINT, the signals that end the server. Call it before the
// first thread starts: threads inherit that they are blocked.
void BlockStopSignals();

// Serves until SIGTERM or SIGINT, or until no device is left, then drains; a
// second signal ends the process at once. The ports are written to
// `ports_file`, if it is not empty, once the server is ready: "grpc PORT" and
// "metrics PORT", one a line.
int Run(const Config& config, const std::string& ports_file);

}  // namespace svdserve

#endif  // SVDSERVE_SERVER_RUN_H_
