// svdctl: what is done to a model before it is served, and the client of a
// server. One command a file: NAME_command.cc.
#include <CLI/CLI.hpp>

#include "tools/commands.h"

int main(int argc, char** argv) {
  CLI::App app("Compress and inspect models; talk to svdserve");
  app.require_subcommand(1);
  app.fallthrough(false);
  int exit_code = 0;
  svdserve::AddCompressCommand(app, &exit_code);
  svdserve::AddEvaluateCommand(app, &exit_code);
  svdserve::AddInspectCommand(app, &exit_code);
  svdserve::AddEmbedCommand(app, &exit_code);
  svdserve::AddClassifyCommand(app, &exit_code);
  svdserve::AddRerankCommand(app, &exit_code);
  svdserve::AddEstimateCommand(app, &exit_code);
  svdserve::AddInfoCommand(app, &exit_code);
  svdserve::AddLoadCommand(app, &exit_code);
  CLI11_PARSE(app, argc, argv);
  return exit_code;
}
