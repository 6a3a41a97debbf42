/* UART of Arm's CMSDK (MPS2, MPS3 and their emulations).  Compiled to nothing where there is none. */
#ifdef EK_UART_CMSDK
#include "port.h"

#define REG(offset) (*(volatile uint32_t *)(uintptr_t)(EK_UART_BASE + (offset)))
#define NVIC_ISER(n) (*(volatile uint32_t *)(uintptr_t)(0xe000e100u + 4u * (n)))
#define DATA 0x00u
#define STATE 0x04u
#define CTRL 0x08u
#define INTCLEAR 0x0cu
#define BAUDDIV 0x10u
#define TX_FULL 1u
#define RX_FULL 2u
#define CTRL_TX_RX_RXINT 0x0bu
#define RING 8192u /* a power of two; holds the agent's window and one frame */

/* One writer (interrupt: head) and one reader (tail): no lock is needed. */
static uint8_t ring[RING];
static volatile uint32_t head, tail;

void ek_port_uart_start(void)
{
    REG(BAUDDIV) = EK_CLOCK_HZ / 115200u;
    REG(CTRL) = CTRL_TX_RX_RXINT;
    /* Transmit and receive have neighbouring lines whose order differs between manuals: both are on,
     * and only receive interrupts are enabled in the UART. */
    for (uint32_t i = EK_UART_IRQ; i < EK_UART_IRQ + 2u; i++) NVIC_ISER(i / 32u) = 1u << (i % 32u);
}

void ek_port_irq(void)
{
    REG(INTCLEAR) = 3u;
    while (REG(STATE) & RX_FULL) {
        uint8_t byte = (uint8_t)REG(DATA);
        if (head - tail < RING) ring[head++ % RING] = byte; /* else lost: the frame's CRC tells */
    }
}

size_t ek_port_uart_rx(void *ctx, uint8_t *buf, size_t cap)
{
    size_t n = 0;
    (void)ctx;
    while (n < cap && tail != head) buf[n++] = ring[tail++ % RING];
    return n;
}

void ek_port_uart_wait(void)
{
    /* A byte that comes between the look and the sleep still ends the sleep: wfi wakes for masked
     * interrupts too. */
    __asm__ volatile("cpsid i" ::: "memory");
    if (head == tail) __asm__ volatile("wfi");
    __asm__ volatile("cpsie i" ::: "memory");
}

int ek_port_uart_tx(void *ctx, const uint8_t *data, size_t len)
{
    (void)ctx;
    for (size_t i = 0; i < len; i++) {
        while (REG(STATE) & TX_FULL) {
        }
        REG(DATA) = data[i];
    }
    return 0;
}
#else
typedef int ek_no_cmsdk_uart;
#endif
