# The ground floor: files, commands, interrupts, memory, threads, seeds. Imports no other room.
