# Its preparation of data.
