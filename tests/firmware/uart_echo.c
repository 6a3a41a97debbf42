/* Sends back every byte that comes over the UART, plus one. */
#include "port.h"

int main(void)
{
    uint8_t buffer[64];
    ek_port_uart_start();
    for (;;) {
        size_t n = ek_port_uart_rx(0, buffer, sizeof buffer);
        for (size_t i = 0; i < n; i++) buffer[i]++;
        ek_port_uart_tx(0, buffer, n);
        if (!n) ek_port_uart_wait();
    }
}
