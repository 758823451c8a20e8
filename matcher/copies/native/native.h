/* What every file of the native library shares. */
#ifndef FILIGRANE_NATIVE_H
#define FILIGRANE_NATIVE_H

#include <stdint.h>

/* A function marked CLONED is compiled for several generations of processors; the loader takes the best that this one has. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12 && !defined(FILIGRANE_ONE)
#define CLONED __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CLONED
#endif

/* For functions of one file of the library that another one calls. */
#define HIDDEN __attribute__((visibility("hidden")))

#define INLINE static inline __attribute__((always_inline))

#endif
