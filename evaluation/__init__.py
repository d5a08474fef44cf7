# Numbers and pictures: metrics, comparison pictures, the HTML report. Imports no other room.
