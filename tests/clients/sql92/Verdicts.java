import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.rocketmq.filter.FilterFactory;
import org.apache.rocketmq.filter.expression.EvaluationContext;
import org.apache.rocketmq.filter.expression.Expression;

/**
 * What Apache's own code says of SQL92 expressions and messages. Reads messages.tsv (a name, then properties) and the second
 * column of table.tsv (expressions) in the directory given, and writes the first column anew: a letter for each message, t for
 * true, f for false, n for null, e for an error, or `refused` for an expression that is not read.
 */
public class Verdicts {
    public static void main(String[] arguments) throws Exception {
        Path directory = Path.of(arguments[0]);
        List<EvaluationContext> messages = new ArrayList<>();
        for (String line : Files.readAllLines(directory.resolve("messages.tsv"), StandardCharsets.UTF_8)) {
            Map<String, Object> properties = new HashMap<>();
            String[] parts = line.split("\t", -1);
            for (int at = 1; at < parts.length; at++) {
                int end = parts[at].indexOf('=');
                properties.put(parts[at].substring(0, end), parts[at].substring(end + 1));
            }
            messages.add(new EvaluationContext() {
                @Override
                public Object get(String name) {
                    return properties.get(name);
                }

                @Override
                public Map<String, Object> keyValues() {
                    return properties;
                }
            });
        }
        Path table = directory.resolve("table.tsv");
        StringBuilder output = new StringBuilder();
        for (String line : Files.readAllLines(table, StandardCharsets.UTF_8)) {
            String text = line.substring(line.indexOf('\t') + 1);
            output.append(verdicts(unescaped(text), messages)).append('\t').append(text).append('\n');
        }
        Files.writeString(table, output);
    }

    private static String unescaped(String text) {
        return text.replace("\\n", "\n").replace("\\t", "\t").replace("\\r", "\r").replace("\\\\", "\\");
    }

    private static String verdicts(String text, List<EvaluationContext> messages) {
        Expression expression;
        try {
            expression = FilterFactory.INSTANCE.get("SQL92").compile(text);
        } catch (Exception error) {
            return "refused";
        }
        StringBuilder letters = new StringBuilder();
        for (EvaluationContext message : messages) {
            letters.append(verdict(expression, message));
        }
        return letters.toString();
    }

    private static char verdict(Expression expression, EvaluationContext message) {
        try {
            Object value = expression.evaluate(message);
            return value == null ? 'n' : Boolean.TRUE.equals(value) ? 't' : Boolean.FALSE.equals(value) ? 'f' : '?';
        } catch (Exception error) {
            return 'e';
        }
    }
}
