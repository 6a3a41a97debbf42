/* Self-test of the model, then one inference that lets other tasks run between its ops. */
#include <stdio.h>
#include <string.h>
#include "freertos/FreeRTOS.h"
#include "freertos/task.h"
#include "kws.h"

EK_ALIGNED(16) static uint8_t memory[KWS_MEMORY_BYTES];

static int yield(void *ctx)
{
    (void)ctx;
    taskYIELD();
    return 0; /* another number ends the inference */
}

void app_main(void)
{
    ek_session *session;
    ek_config config;
    ek_tensor input, output;
    kws_config(&config, memory);
    config.cancel = yield;
    ek_status e = ek_open(&session, &config);
    if (e == EK_OK)
        e = ek_selftest(session);
    printf("kws: self-test: %u\n", (unsigned)EK_CODE(e));
    if (e != EK_OK)
        return;
    ek_input(session, 0, 0, &input);
    memset(input.data, 0, input.bytes);
    e = ek_run(session, 0);
    ek_output(session, 0, 0, &output);
    printf("kws: run: %u, first output byte %u\n", (unsigned)EK_CODE(e), *(const uint8_t *)output.data);
}
