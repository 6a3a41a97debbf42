/* Self-test of the model, then one inference that lets other threads run between its ops. */
#include <zephyr/kernel.h>
#include <zephyr/sys/printk.h>
#include <string.h>
#include "kws.h"

EK_ALIGNED(16) static uint8_t memory[KWS_MEMORY_BYTES];

static int yield(void *ctx)
{
    ARG_UNUSED(ctx);
    k_yield();
    return 0; /* another number ends the inference */
}

int main(void)
{
    ek_session *session;
    ek_config config;
    ek_tensor input, output;
    kws_config(&config, memory);
    config.cancel = yield;
    ek_status e = ek_open(&session, &config);
    if (e == EK_OK)
        e = ek_selftest(session);
    printk("kws: self-test: %u\n", (unsigned)EK_CODE(e));
    if (e != EK_OK)
        return 0;
    ek_input(session, 0, 0, &input);
    memset(input.data, 0, input.bytes);
    e = ek_run(session, 0);
    ek_output(session, 0, 0, &output);
    printk("kws: run: %u, first output byte %u\n", (unsigned)EK_CODE(e), *(const uint8_t *)output.data);
    return 0;
}
