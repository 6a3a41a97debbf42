/* Firmware: the agent over the board's UART, with the package in flash (if one is linked in) and
 * everything else, an uploaded package too, in the main bank. */
#include "agent.h"
#include "port.h"
#include "tiny.h"
#include "wire.h"

#define MAX_BODY 1008
#define QUEUE 8
#define WINDOW 4096 /* with one frame below the UART driver's ring */

static ek_agent agent;
static uint64_t work[(EK_AGENT_WORK_BYTES(MAX_BODY, QUEUE) + 7) / 8];

static ek_tiny tiny;

/* The line speaks text until the first 0x00; what came with it belongs to the agent. */
static size_t rx(void *ctx, uint8_t *buf, size_t cap)
{
    size_t n = ek_tiny_rest(&tiny, buf, cap);
    return n ? n : ek_port_uart_rx(ctx, buf, cap);
}

static uint64_t stack_used(void *ctx)
{
    (void)ctx;
    return ek_port_stack_used();
}

static void describe(void *ctx, unsigned i, ek_agent_channel *c)
{
    (void)ctx, (void)i;
    c->channel = 16;
    c->kind = EK_KIND_POWER;
    c->quality = EK_QUALITY_UNMEASURABLE;
    c->unit = EK_UNIT_UW;
    c->name = "power";
    c->site = "board";
    c->reason = EK_POWER_REASON;
}

int main(void)
{
    ek_agent_config c = EK_AGENT_CONFIG_INIT;
    ek_range heap = ek_port_heap(), fast = ek_port_fast();
    ek_port_clock_start();
    ek_port_uart_start();
    c.framing = EK_FRAMING_COBS;
    c.max_body = MAX_BODY;
    c.queue_frames = QUEUE;
    c.rx_window = WINDOW;
    c.rx = rx;
    c.tx = ek_port_uart_tx;
    c.clock = ek_port_clock;
#ifdef EK_ICOUNT_SHIFT
    c.clock_kind = EK_CLOCK_INSTRUCTIONS;
    c.emulated = 1;
#else
    c.clock_kind = EK_CLOCK_TIME;
    c.clock_hz = EK_CLOCK_HZ;
#endif
    c.channels = 1;
    c.describe = describe;
    c.stack_used = stack_used;
    c.name = EK_BOARD_NAME;
    c.firmware = "edgekit bare 0.1";
    c.work = work;
    c.work_len = sizeof work;
    c.ram = heap.base;
    c.ram_len = heap.size;
    if (fast.size) {
        c.mem[EK_MEM_FAST] = fast.base;
        c.mem_len[EK_MEM_FAST] = fast.size;
    }
    if (ek_package_size) {
        c.resident = ek_package;
        c.resident_len = ek_package_size;
    }
    tiny.rx = ek_port_uart_rx;
    tiny.tx = ek_port_uart_tx;
    tiny.clock = ek_port_clock;
    tiny.clock_hz = c.clock_hz;
    tiny.name = EK_BOARD_NAME;
    tiny.package = c.resident;
    tiny.package_len = c.resident_len;
    tiny.ram = heap.base;
    tiny.ram_len = heap.size;
    while (!ek_tiny_step(&tiny)) ek_port_uart_wait();
    if (ek_agent_init(&agent, &c) != EK_AGENT_OK) ek_port_exit(1);
    for (;;)
        if (ek_agent_step(&agent) == EK_AGENT_IDLE) ek_port_uart_wait();
}
