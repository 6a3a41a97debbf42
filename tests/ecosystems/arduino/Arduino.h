// Stand-in for an Arduino core: what the sketch calls, printing on this machine.
#pragma once
#include <cstdio>
#include <cstdlib>
#include <cstring>
struct Console {
  void begin(long) {}
  void print(const char *text) { std::fputs(text, stdout); }
  void println(unsigned value) { std::printf("%u\n", value); }
};
static Console Serial;
inline void delay(unsigned) { std::exit(0); }
