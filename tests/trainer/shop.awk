# An event log: 60 users who keep to one of three categories of 30 items each.
BEGIN {
  print "user\titem\tcategory\tts"
  for (u = 0; u < 60; ++u)
    for (k = 0; k < 12; ++k) printf "u%d\ti%d\tc%d\t%d\n", u, (u % 3) + 3 * ((u * 7 + k * 11) % 30), u % 3, k
}
