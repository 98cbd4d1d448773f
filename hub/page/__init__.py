"""The page for users, below `/page/`: plain HTML that needs no script, made from what the hub knows.

What is shown comes from strangers: it is bounded, what is not printable in it is shown as an escape, and templates
escape all of it. A page may load and run nothing but our own two files.

`routes`       the requests: who asks, what is to be shown or done
`queries`      from rows of the store to what pages show
`views`        what pages show: plain values
`rendering`    from these to HTML, with `templates/` and `static/`
`schema`       an endpoint's schema as a form, and what is typed there as options
`snippet`      options as a program to paste
`waiting`      why a user endpoint is not there, in words
`timeline`     a picture of starts
`words`        times, durations and texts of strangers
"""
