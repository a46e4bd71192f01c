// The subcommands of svdctl, one file each: NAME_command.cc.
//
// Each function adds its command to `app` and returns it. If the command runs,
// it stores the program's exit code into `exit_code`: 0 done, 1 failed (the
// reason is on stderr); wrong usage is CLI11's to report. `exit_code` must
// outlive the parsing.
#ifndef SVDSERVE_TOOLS_COMMANDS_H_
#define SVDSERVE_TOOLS_COMMANDS_H_

#include <CLI/CLI.hpp>

namespace svdserve {

CLI::App* AddCompressCommand(CLI::App& app, int* exit_code);
CLI::App* AddEvaluateCommand(CLI::App& app, int* exit_code);
CLI::App* AddInspectCommand(CLI::App& app, int* exit_code);

CLI::App* AddEmbedCommand(CLI::App& app, int* exit_code);
CLI::App* AddClassifyCommand(CLI::App& app, int* exit_code);
CLI::App* AddRerankCommand(CLI::App& app, int* exit_code);
CLI::App* AddEstimateCommand(CLI::App& app, int* exit_code);
CLI::App* AddInfoCommand(CLI::App& app, int* exit_code);
CLI::App* AddLoadCommand(CLI::App& app, int* exit_code);

}  // namespace svdserve

#endif  // SVDSERVE_TOOLS_COMMANDS_H_
