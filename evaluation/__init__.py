# Metrics, comparison pictures, videos and the HTML report. Imports only runtime/.
