/* Which sources the library was built from: the loader refuses one that is stale. */
#include "native.h"

const char *filigrane_build(void) { return FILIGRANE_BUILD; }
