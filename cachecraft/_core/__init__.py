"""The thinking part: no I/O, no clock, no colour. Everything here is decided, nothing is done."""
