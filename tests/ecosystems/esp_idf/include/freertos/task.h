#define taskYIELD() ((void)0)
