import java.io.BufferedReader;
import java.io.ByteArrayOutputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import org.apache.rocketmq.tools.command.MQAdminStartup;

/**
 * mqadmin, a command after the other in one process: starting Java for each takes longer than the commands do. A line of standard
 * input is a command, its arguments separated by tabs; what it prints is followed by a line with the one character of code 0.
 */
public class Admin {
    public static void main(String[] arguments) throws Exception {
        PrintStream output = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = input.readLine(); line != null; line = input.readLine()) {
            ByteArrayOutputStream said = new ByteArrayOutputStream();
            PrintStream printed = new PrintStream(said, true, StandardCharsets.UTF_8);
            System.setOut(printed);
            System.setErr(printed);
            MQAdminStartup.main(line.split("\t"));
            output.print(said.toString(StandardCharsets.UTF_8));
            output.print("\n\0\n");
            output.flush();
        }
    }
}
