/* What a bare-metal program of EdgeKit gets: start-up, memory, clock, UART, semihosting.
 *
 * Given by the compile command, from boards/<id>.toml (edgekit/toolchain.py):
 *   EK_BOARD_NAME, EK_BOARD_CORE   strings
 *   EK_CLOCK_HZ                    processor clock
 *   EK_ICOUNT_SHIFT                emulated: one instruction takes 2^shift ns of the emulator's time
 *   EK_UART_BASE, EK_UART_IRQ      where the board names a UART driver
 *   EK_POWER_REASON                why power cannot be measured */
#ifndef EK_PORT_H
#define EK_PORT_H
#include <stddef.h>
#include <stdint.h>

typedef struct ek_range { uint8_t *base; size_t size; } ek_range;

/* The package linked in by package.S, aligned to 64; size 0 where there is none. */
extern const uint8_t ek_package[];
extern const uint32_t ek_package_size;

int main(void);
/* Free memory: all of the main bank behind .bss, and the whole fast bank (size 0: none). */
ek_range ek_port_heap(void);
ek_range ek_port_fast(void);
/* Most bytes of stack ever used; the stack lies at the bottom of RAM, so an overflow faults. */
uint64_t ek_port_stack_used(void);

/* SysTick widened to 64 bits.  Its unit is the processor cycle; under an emulator with -icount it is
 * converted to executed instructions, never to time. */
void ek_port_clock_start(void);
uint64_t ek_port_clock(void *ctx);

/* Never blocks: bytes at hand, from the ring that the interrupt fills. */
void ek_port_uart_start(void);
size_t ek_port_uart_rx(void *ctx, uint8_t *buf, size_t cap);
int ek_port_uart_tx(void *ctx, const uint8_t *data, size_t len);
void ek_port_uart_wait(void); /* sleeps until a byte is at hand or any interrupt comes */
void ek_port_irq(void); /* every external interrupt; the UART driver's */

/* Semihosting: needs a debugger or an emulator, else the processor faults. */
void ek_port_print(const char *text);
void ek_port_print_u32(uint32_t value);
void ek_port_exit(int code) __attribute__((noreturn));
int ek_port_open(const char *path, int mode); /* mode 1: read binary, 5: write binary; < 0: failed */
long ek_port_length(int file);
/* Whole transfer or failure: 1 or 0. */
int ek_port_read(int file, void *to, size_t len);
int ek_port_write(int file, const void *from, size_t len);
void ek_port_close(int file);
#endif
