# frozen_string_literal: true

# Write the running order of a radio show.
#
# A show is a list of songs, each with a title and a length such as "3:45". Between
# two songs the host talks for a fixed number of seconds. Starting at a given time of
# day, print for each song the time at which it begins ("21:03:45"); a show may run
# past midnight. Also tell at what time the last song ends.

Song = Struct.new(:title, :length) do
  # Length in seconds, read from minutes and seconds.
  def seconds
    minutes, seconds = length.split(':').map { |part| Integer(part, 10) }
    minutes * 60 + seconds
  end
end

# The order of songs in a show, with the time at which each of them begins.
class RunningOrder
  SECONDS_PER_DAY = 24 * 60 * 60

  # start and pause are given in seconds: after midnight, and between songs.
  def initialize(songs, start:, pause:)
    @songs = songs
    @start = start
    @pause = pause
  end

  # One line per song, followed by a line for the end of the show.
  def lines
    clock = @start
    entries = @songs.map.with_index do |song, index|
      # The host talks between songs, so not before the first one.
      clock += @pause if index.positive?
      line = "#{time_of_day(clock)} #{song.title}"
      clock += song.seconds
      line
    end
    entries + ["#{time_of_day(clock)} (end)"]
  end

  private

  def time_of_day(seconds)
    minutes, seconds = (seconds % SECONDS_PER_DAY).divmod(60)
    format('%02d:%02d:%02d', *minutes.divmod(60), seconds)
  end
end

if $PROGRAM_NAME == __FILE__
  songs = [Song.new('River Stones', '3:45'), Song.new('Night Bus', '10:08')]
  show = RunningOrder.new(songs, start: 23 * 3600 + 50 * 60, pause: 30)
  expected = ['23:50:00 River Stones', '23:54:15 Night Bus', '00:04:23 (end)']
  raise 'self-check failed' unless show.lines == expected

  puts show.lines
end
