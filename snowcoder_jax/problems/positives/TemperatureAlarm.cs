// A cold store must raise an alarm when it gets too warm, but an alarm that goes on
// and off with every small swing of the temperature is useless. Write a class that
// switches the alarm on when a reading is above the upper limit and switches it off
// again only when a reading is below the lower limit. In between, the alarm stays as
// it is. The class raises an event on every switch, and it counts the readings taken
// while the alarm was on, including the one that switched it on.

#nullable enable

using System;
using System.Collections.Generic;

/// <summary>An alarm with separate limits for switching on and off.</summary>
public sealed class TemperatureAlarm
{
    private readonly double _offBelow;
    private readonly double _onAbove;

    /// <param name="offBelow">The alarm ends below this temperature.</param>
    /// <param name="onAbove">The alarm starts above this temperature.</param>
    public TemperatureAlarm(double offBelow, double onAbove)
    {
        if (offBelow > onAbove)
        {
            throw new ArgumentException("the lower limit exceeds the upper one");
        }
        _offBelow = offBelow;
        _onAbove = onAbove;
    }

    /// <summary>Raised with the new state whenever the alarm switches.</summary>
    public event Action<bool>? Switched;

    public bool IsOn { get; private set; }

    /// <summary>Number of readings taken while the alarm was on.</summary>
    public int AlarmReadings { get; private set; }

    public void Read(double temperature)
    {
        // Which limit matters depends on the present state: that is what keeps
        // readings between the two limits from switching anything.
        bool next = IsOn ? temperature >= _offBelow : temperature > _onAbove;
        if (next != IsOn)
        {
            IsOn = next;
            Switched?.Invoke(next);
        }
        if (IsOn)
        {
            AlarmReadings++;
        }
    }
}

public static class Program
{
    public static void Main()
    {
        var switches = new List<bool>();
        var alarm = new TemperatureAlarm(offBelow: 4.0, onAbove: 7.0);
        alarm.Switched += switches.Add;
        foreach (double reading in new[] { 5.0, 7.0, 7.5, 6.0, 4.0, 3.9, 6.5 })
        {
            alarm.Read(reading);
        }
        bool passed = switches.Count == 2 && !alarm.IsOn && alarm.AlarmReadings == 3;
        Console.WriteLine(passed ? "alarm works" : "self-check failed");
    }
}
