#include "app/commands.h"

int main(int argc, char** argv) { return bise::run_program(argc, argv); }
