// For an editor or a compiler that reads one of the .inl.h files by itself: the instruction set every machine has.
#pragma once

#include "base.h"

#define CONVATTN_NAMESPACE vector128
#define CONVATTN_LANES 4
#define CONVATTN_REGISTERS 32
#define CONVATTN_BFLOAT16_PRODUCTS 0

using namespace convattn;
