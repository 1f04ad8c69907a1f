"""A virtual machine of this very host's files on another kernel, and the kernel tests run inside it."""
