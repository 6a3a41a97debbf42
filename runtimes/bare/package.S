/* The package in flash.  EK_PACKAGE_FILE is the path of its bytes; without it the package is empty. */
    .section .package, "a"
    .balign 64
    .global ek_package
ek_package:
#ifdef EK_PACKAGE_FILE
    .incbin EK_PACKAGE_FILE
#endif
ek_package_end:
    .balign 4
    .global ek_package_size
ek_package_size:
    .word ek_package_end - ek_package
