"""What a table tells: layouts, moves of fields, differences of two kernels, and all of it as a picture."""
