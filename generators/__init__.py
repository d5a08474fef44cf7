# Generators: reference photos and cameras in, images of those cameras out.
