/* Firmware of custom_op.py: an op list with an op of one's own, and a yield hook between ops. */
#include "op.h"
#include "oplist.h"
#include "port.h"
#include "squares.c" /* the hook; or compiled by itself */

static const ek_op_def *const ops[] = { &ek_op_binary, &ek_op_squares, 0 };

static unsigned yields;
static int yield(void *ctx) { return (void)ctx, yields++, 0; }
static void on_failure(void *ctx, ek_status s) { (void)ctx, ek_port_print(ek_strerror(s)); }

int main(void)
{
    ek_config c = EK_CONFIG_INIT;
    ek_session *s;
    ek_tensor in, out;
    ek_range heap = ek_port_heap();
    if (ek_arena_size(ek_package, ek_package_size, 1, c.mem_len) != EK_OK)
        return 1;
    for (unsigned i = 0; i < EK_MEM_KINDS; i++, heap.base += (c.mem_len[i - 1] + 15) & ~(size_t)15)
        c.mem[i] = heap.base;
    c.package = ek_package;
    c.package_len = ek_package_size;
    c.ops = ops;
    c.cancel = yield;
    c.log = on_failure;
    if (ek_open(&s, &c) != EK_OK)
        return 1;
    ek_input(s, 0, 0, &in);
    for (unsigned i = 0; i < in.bytes / 4; i++)
        ((float *)in.data)[i] = 0.5f * (float)i;
    if (ek_run(s, 0) != EK_OK)
        return 1;
    ek_output(s, 0, 0, &out);
    for (unsigned i = 0; i < out.bytes / 4; i++) {
        ek_port_print_u32(((const uint32_t *)out.data)[i]);
        ek_port_print("\n");
    }
    ek_port_print("yields ");
    ek_port_print_u32(yields);
    ek_port_print("\n");
    return 0;
}
