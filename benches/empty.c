/* What the C library and the kernel charge for a process that does nothing. */
int main(void) {
    return 0;
}
