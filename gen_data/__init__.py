# Curation: captures to triplets (render, reference, ground truth), and their JSON.
