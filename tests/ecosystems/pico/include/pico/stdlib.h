#include <stdint.h>
static inline void stdio_init_all(void) {}
static inline uint64_t time_us_64(void) { return 0; }
static inline void sleep_ms(uint32_t ms) { (void)ms; }
