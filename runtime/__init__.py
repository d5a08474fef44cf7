# The lowest package: files, commands, interrupts, memory, threads, seeds. Imports no other package.
