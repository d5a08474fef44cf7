# Structure from motion with pycolmap: photos only -> a COLMAP model beside them.
